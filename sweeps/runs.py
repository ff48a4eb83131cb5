"""Run folders: one for each time a study is started, with all that is known of it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sweeps.search.designs import Adaptive
from sweeps.study import StudyConfig
from sweeps.tracking.config import TrackingSettings, without_credentials
from ubt.config import validate
from ubt.config.paths import JsonObject, difference, get_path
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

    def write_study(self, study: StudyConfig) -> None:
        """Write down what is run; passwords in addresses are left out."""
        write_whole(self.study, without_credentials(json.dumps(study.as_json(), indent=1)) + "\n")


def new_run(out: Path, name: str) -> RunFolder:
    """Return a folder that no run has used: `out/name`, then `out/name-2` and so on.

    Raises:
        UserError: if it cannot be made.
    """
    for folder in _candidates(out, name):
        if not (folder / "study.json").exists():
            try:
                (folder / "records").mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UserError(Problem("--out", f"cannot be written: {error}", str(out))) from error
            return RunFolder(folder.absolute())
    raise AssertionError("the candidates never end")


def latest_run(out: Path, name: str) -> RunFolder:
    """Return the newest run of a study.

    Raises:
        UserError: if there is none.
    """
    existing = list(itertools.takewhile(lambda folder: (folder / "study.json").exists(), _candidates(out, name)))
    if not existing:
        raise UserError(Problem("--resume", f"there is no run of `{name}` in {out}", advice="leave --resume out"))
    return RunFolder(existing[-1].absolute())


def check_same_study(run: RunFolder, study: StudyConfig) -> StudyConfig:
    """Return the study as it was begun: what followed from the machine then (`search.lag`) is kept.

    Raises:
        UserError: naming each field that differs; the run's records would belong to neither study.
    """
    before: JsonObject = json.loads(run.study.read_text(encoding="utf-8"))
    if isinstance(study.search, Adaptive) and study.search.lag is None:
        search = study.search.model_copy(update={"lag": get_path(before, "search.lag")})
        study = study.model_copy(update={"search": search})
    changed = {p: v for p, v in difference(study.as_json(), before).items() if not p.startswith(MAY_CHANGE)}
    if changed:
        advice = "give the value of the first run, or start a new run without --resume"
        where = f"--resume {run.path.name}"
        raise UserError([Problem(f"{where}: {p}", "differs from the run", v, advice) for p, v in changed.items()])
    return study


def tracking_of(folder: Path) -> TrackingSettings:
    """Return where a run is tracked.

    Raises:
        UserError: if the folder is no run.
    """
    study = folder / "study.json"
    if not study.is_file():
        raise UserError(Problem(str(folder), "is no run folder: it has no study.json", advice="e.g. runs/demo"))
    return validate(TrackingSettings, json.loads(study.read_text(encoding="utf-8"))["tracking"], str(study))


def _candidates(out: Path, name: str) -> Iterator[Path]:
    return itertools.chain([out / name], (out / f"{name}-{number}" for number in itertools.count(2)))
