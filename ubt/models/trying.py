"""Weights that a study names, tried in a process of its own: the one that asks needs neither torch nor the memory."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryFile

from ubt.common.errors import Problem, UserError
from ubt.common.progress import waiting_for
from ubt.models.settings import ModelSettings

_log = logging.getLogger(__name__)

Named = tuple[ModelSettings, Path | None]
"""A clean model, and the checkpoint of a poisoned one that is to fit it."""


@contextmanager
def weights_tried(named: Sequence[Named], apart: bool = True) -> Iterator[Callable[[], list[Problem]]]:
    """Try weights beside what is done in the block; what is yielded waits for that and returns every mistake.

    Torch alone is 750 MB of a process, and takes seconds. Leaving the block earlier ends the process. If it is not to
    be `apart`, this process tries them, once it is asked.
    """
    process = _process_for(named) if named and apart else None
    if process is None:
        yield lambda: _tried(named)
        return
    with process:
        try:
            yield lambda: _problems(process)
        finally:
            process.kill()


def _process_for(named: Sequence[Named]) -> subprocess.Popen[str] | None:
    """Return the process that tries weights; None where there can be none."""
    command = [sys.executable, "-P", "-m", __name__]  # -P: no module of the folder that it is called from
    asked = [[model.model_dump(mode="json"), poisoned and str(poisoned)] for model, poisoned in named]
    try:
        with TemporaryFile("w+") as source:  # not a pipe, which would be filled only once it is read
            json.dump(asked, source)
            source.seek(0)
            # In a session of its own: Ctrl-C is for the process that asks, which ends this one.
            return subprocess.Popen(command, stdin=source, stdout=subprocess.PIPE, text=True, start_new_session=True)
    except OSError as error:
        _log.debug("weights are tried in this process: %s", error)
        return None


def _problems(process: subprocess.Popen[str]) -> list[Problem]:
    with waiting_for("weights to be read and tried"):
        said, _ = process.communicate()
    if process.returncode:
        text, killed = f"the process that tries them ended with status {process.returncode}", process.returncode < 0
        advice = "it was killed, perhaps for lack of memory" if killed else "its error is above"
        return [Problem("victim.model: weights", text, advice=advice)]
    return [Problem(**problem) for problem in json.loads(said)]


def _tried(named: Sequence[Named]) -> list[Problem]:
    problems: list[Problem] = []
    for model, poisoned in named:
        from ubt.models.build import check_weights  # noqa: PLC0415 — torch

        try:
            check_weights(model, poisoned)
        except UserError as error:
            problems += error.problems
    return problems


def main() -> None:
    """Read what is named as JSON; write the mistakes."""
    logging.getLogger().setLevel(logging.ERROR)  # open_clip warns of each model that is built before it has weights
    given = [(ModelSettings.model_validate(model), poisoned) for model, poisoned in json.load(sys.stdin)]
    with redirect_stdout(sys.stderr):  # what libraries print is no part of the answer
        problems = _tried([(model, poisoned and Path(poisoned)) for model, poisoned in given])
    json.dump([asdict(problem) for problem in problems], sys.stdout, default=str)


if __name__ == "__main__":
    main()
