"""Run folders: one for each time a study is started, with all that is known of it."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from pydantic import JsonValue

from sweeps.search.designs import Adaptive, Comparison
from sweeps.study import StudyConfig
from sweeps.tracking.config import TrackingSettings, without_credentials
from ubt.config import validate
from ubt.config.paths import JsonObject
from ubt.errors import Problem, UserError
from ubt.files import write_whole

MAY_CHANGE = ("name", "resources", "tracking", "objectives", "store")
"""Parts of a study that a resumed run may change: they decide neither what is run nor what comes out of it."""


@dataclass(frozen=True)
class RunFolder:
    """Where everything of one run lies."""

    path: Path

    @property
    def records(self) -> Path:
        """Folder of trial records."""
        return self.path / "records"

    @property
    def study(self) -> Path:
        """The study as it was resolved."""
        return self.path / "study.json"

    @property
    def journal(self) -> Path:
        """Optuna's storage."""
        return self.path / "optuna.journal"

    @property
    def report(self) -> Path:
        """Folder of the report."""
        return self.path / "report"

    def check_writable(self) -> None:
        """Refuse a place where the folder cannot be made; nothing is made yet.

        Raises:
            UserError: naming what stands in the way.
        """
        nearest = next(folder for folder in (self.path, *self.path.parents) if folder.exists())
        if not nearest.is_dir() or not os.access(nearest, os.W_OK):
            reason = "may not be written to" if nearest.is_dir() else "is no folder"
            message = f"the run folder cannot be made: {nearest} {reason}"
            raise UserError(Problem("--out", message, str(self.path.parent), "give another folder with --out"))

    def write_study(self, study: StudyConfig) -> None:
        """Write down what is run; passwords in addresses are left out."""
        write_whole(self.study, _presentable(study) + "\n")


def new_run(out: Path, name: str) -> RunFolder:
    """Return a folder that no run has used: `out/name`, then `out/name-2` and so on. It is not made yet."""
    folder = next(folder for folder in _candidates(out, name) if not (folder / "study.json").exists())
    return RunFolder(folder.absolute())


def latest_run(out: Path, name: str) -> RunFolder:
    """Return the newest run of a study.

    Raises:
        UserError: if there is none.
    """
    existing = list(itertools.takewhile(lambda folder: (folder / "study.json").exists(), _candidates(out, name)))
    if not existing:
        raise UserError(Problem("--resume", f"there is no run of `{name}` in {out}", advice="leave --resume out"))
    return RunFolder(existing[-1].absolute())


def check_same_study(run: RunFolder, study: StudyConfig, extend: bool = False) -> StudyConfig:
    """Return the study as it was begun: what followed from the machine then (`search.lag`) is kept.

    With `extend` the search may differ: its configurations are run behind those there are.

    Raises:
        UserError: naming each field that differs; the run's records would belong to neither study.
    """
    before = _read_study(run.study)
    if isinstance(study.search, Adaptive) and study.search.lag is None:
        search = study.search.model_copy(update={"lag": cast(JsonObject, before.get("search", {})).get("lag")})
        study = study.with_parts(search=search)
    where, advice = f"--resume {run.path.name}", "give the value of the first run, or leave --resume out"
    problems = [
        Problem(f"{where}: {path}", f"differs from the run, which has {old!r}", new, advice)
        for path, new, old in _differences(json.loads(_presentable(study)), before)
        if path.partition(".")[0] not in _may_change(study, extend)
    ]
    if problems:
        raise UserError(problems)
    return study


def _may_change(study: StudyConfig, extend: bool) -> tuple[str, ...]:
    if extend:
        return (*MAY_CHANGE, "search")
    decisive = ["objectives"] if isinstance(study.search, Comparison) else []  # its table is of what they choose
    return tuple(part for part in MAY_CHANGE if part not in decisive)


def with_more_trials(run: RunFolder, study: StudyConfig, more: int) -> StudyConfig:
    """Return the study with `more` trials than the run was last asked for.

    Raises:
        UserError: if its search is none of Optuna's: a design says itself how many trials it has.
    """
    if not isinstance(study.search, Adaptive):
        changed = "name further attacks or defenses" if isinstance(study.search, Comparison) else "change the design"
        advice = f"{changed} in the study and say --extend"
        raise UserError(Problem("--add-trials", "only an adaptive search (`design: optuna`) takes more", advice=advice))
    before = cast(JsonObject, _read_study(run.study).get("search", {})).get("n_trials")
    asked = before if isinstance(before, int) else study.search.n_trials
    return study.with_parts(search=study.search.model_copy(update={"n_trials": asked + more}))


def tracking_of(folder: Path) -> TrackingSettings:
    """Return where a run is tracked.

    Raises:
        UserError: if the folder is no run.
    """
    study = folder / "study.json"
    if not study.is_file():
        raise UserError(Problem(str(folder), "is no run folder: it has no study.json", advice="e.g. runs/demo"))
    return validate(TrackingSettings, cast(JsonObject, _read_study(study).get("tracking", {})), str(study))


def _read_study(path: Path) -> JsonObject:
    """Return a run's study as it was written down, perhaps by another version."""
    try:
        study = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(Problem(str(path), f"cannot be read: {error}")) from error
    if not isinstance(study, dict):
        raise UserError(Problem(str(path), "must hold a JSON object", given=study))
    return cast(JsonObject, study)


def _presentable(study: StudyConfig) -> str:
    return without_credentials(json.dumps(study.as_json(), indent=1))


def _differences(now: JsonObject, before: JsonObject, prefix: str = "") -> Iterator[tuple[str, JsonValue, JsonValue]]:
    """Yield the path, the new and the old value of each leaf that differs, also where only one side has it."""
    for name in {**before, **now}:
        new, old = now.get(name), before.get(name)
        if isinstance(new, dict) and isinstance(old, dict):
            yield from _differences(new, old, f"{prefix}{name}.")
        elif new != old:
            yield f"{prefix}{name}", new, old


def _candidates(out: Path, name: str) -> Iterator[Path]:
    return itertools.chain([out / name], (out / f"{name}-{number}" for number in itertools.count(2)))
