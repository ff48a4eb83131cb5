"""Run folders: one for each time a study is started, with all that is known of it, and how a run goes on."""

from __future__ import annotations

import itertools
import json
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from filelock import BaseFileLock, FileLock, Timeout

from sweeps.run.job import JOB_FILE, Job, check_lasting
from sweeps.study.config import StudyConfig
from sweeps.tracking.config import TrackingSettings
from ubt.artifacts.remote_folder import at_hand, shown
from ubt.common.atomic_files import NO_LOCKS, set_aside, write_whole
from ubt.common.errors import Problem, UserError
from ubt.common.paths import RECORDS_FOLDER, REPORT_FOLDER, STUDY_FILE, is_file
from ubt.common.secrets import without_credentials
from ubt.config import read_json, validate
from ubt.config.dotted_paths import JsonObject
from ubt.trials.record import DamagedRecord, TrialRecord, read_record

LOCK_FILE = "sweep.lock"
_LOCK_SECONDS = 0.3
"""`ubt status` holds the lock for a moment, to see whether a sweep does."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunFolder:
    """Where everything of one run lies."""

    path: Path
    new: str = ""
    """Name of the study if no run has used the folder when it was looked for; empty for a run that goes on."""

    @property
    def shown(self) -> str:
        """Return where it is, as commands take it."""
        return str(self.path)

    @property
    def records(self) -> Path:
        """Folder of trial records."""
        return self.path / RECORDS_FOLDER

    @property
    def study(self) -> Path:
        """The study as it was resolved."""
        return self.path / STUDY_FILE

    @property
    def journal(self) -> Path:
        """Optuna's storage."""
        return self.path / "optuna.journal"

    @property
    def report(self) -> Path:
        """Folder of the report."""
        return self.path / REPORT_FOLDER

    def check_writable(self) -> None:
        """Refuse a place where the folder cannot be made; nothing is made yet.

        Raises:
            UserError: naming what stands in the way.
        """
        check_lasting(self.path)
        nearest = next(folder for folder in (self.path, *self.path.parents) if folder.exists())
        if not nearest.is_dir() or not os.access(nearest, os.W_OK):
            reason = "may not be written to" if nearest.is_dir() else "is no folder"
            message = f"the run folder cannot be made: {nearest} {reason}"
            raise UserError(Problem("--out", message, str(self.path.parent), "give another folder with --out"))

    @contextmanager
    def taken(self) -> Iterator[RunFolder]:
        """Make the folder, and keep other sweeps out of it for a while; of a new run it may be the next free one.

        Raises:
            UserError: if a sweep is at work in it, or it cannot be made.
        """
        try:
            run, lock = _claimed(self) if self.new else (self, _locked(self.path))
        except Timeout as error:
            message = "another sweep is at work in this run folder"
            raise UserError(Problem(str(self.path), message, advice="wait for it, or leave --resume out")) from error
        except OSError as error:
            raise _unwritable(self.path, error) from error
        try:
            yield run
        finally:
            lock.release()

    def begin(self, study: StudyConfig) -> list[TrialRecord]:
        """Write down what is run, without the passwords in addresses, and return the records that there are, by number.

        A damaged record is set aside, and the trial is run again: its stages are in the store.

        Raises:
            UserError: if the folder cannot be written, or a later version of the package wrote a record.
        """
        try:
            known = list(self._records())
            self.write_study(study)
            self._write_job()
        except OSError as error:
            raise _unwritable(self.path, error) from error
        return sorted(known, key=lambda record: record.number)

    def write_study(self, study: StudyConfig) -> None:
        """Write down what is run; passwords in addresses are left out."""
        if is_file(self.study) and read_or_none(self.study) is None:
            set_aside(self.study)
        write_whole(self.study, presentable(study) + "\n", lasting=True)

    def _write_job(self) -> None:
        job = Job.of_this_process()
        if job or (self.path / JOB_FILE).exists():  # of the sweep before this one
            write_whole(self.path / JOB_FILE, (job or Job()).model_dump_json(indent=1) + "\n")

    def settle(self, at_most_seconds: float) -> None:
        """Have what lies here where the folder is said to be, too, as far as there is time."""

    def _records(self) -> Iterator[TrialRecord]:
        for path in self.records.glob("*.json"):
            try:
                yield read_record(path)
            except DamagedRecord as error:
                text = "%s; it is set aside as %s, and the trial is run again"
                logger.warning(text, error.problems[0].said, set_aside(path).name)


def _claimed(run: RunFolder) -> tuple[RunFolder, BaseFileLock]:
    """Return a new run's folder with the lock that makes it this sweep's; the next one if others have been quicker.

    A sweep that is killed before it has written its study leaves a folder that the next one takes.
    """
    candidates = _candidates(run.path.parent, run.new)
    while True:
        claimed = RunFolder(next(candidates))
        if claimed.study.exists():
            continue
        claimed.path.mkdir(parents=True, exist_ok=True)
        with suppress(Timeout):  # another sweep's that has not written its study yet
            lock = _locked(claimed.path)
            if not claimed.study.exists():
                return claimed, lock
            lock.release()


def _locked(folder: Path) -> BaseFileLock:
    """Return the lock of a run folder, held; `Timeout` if another process has it."""
    lock = FileLock(folder / LOCK_FILE, timeout=_LOCK_SECONDS)
    try:
        lock.acquire()
    except OSError as error:
        if isinstance(error, Timeout) or error.errno not in NO_LOCKS:
            raise
        logger.warning("%s cannot be locked on this file system: start no second sweep in it", folder)
    return lock


def _unwritable(folder: Path, error: OSError) -> UserError:
    advice = "free some space or make it writable; or give another folder with --out"
    return UserError(Problem(str(folder), f"the run folder cannot be written: {error}", advice=advice))


def new_run(out: Path, name: str) -> RunFolder:
    """Return a folder that no run has used: `out/name`, then `out/name-2` and so on. It is not made yet."""
    folder = next(folder for folder in _candidates(out, name) if not (folder / STUDY_FILE).exists())
    return RunFolder(folder.absolute(), new=name)


def latest_run(out: Path, name: str) -> RunFolder:
    """Return the run of a study that was begun or resumed last.

    Raises:
        UserError: if there is none.
    """
    runs = _runs(out, name)
    if not runs:
        raise UserError(Problem("--resume", f"there is no run of `{name}` in {out}", advice="leave --resume out"))
    newest = max(runs, key=lambda path: (path.stat().st_mtime_ns, len(path.parent.name), path.parent.name))
    return RunFolder(newest.parent.absolute())


def has_run(out: Path, name: str) -> bool:
    """Tell whether there is a run of a study to go on with."""
    return bool(_runs(out, name))


def _runs(out: Path, name: str) -> list[Path]:
    return [path for path in (out / name / STUDY_FILE, *out.glob(f"{name}-*/{STUDY_FILE}")) if _is_of(path, name)]


def _is_of(path: Path, name: str) -> bool:
    """Tell whether a study's file is there and of this study: `demo-2` may be a second run, or another study's.

    Where it cannot be read its trials tell; without any, nothing has been run there that could go on.
    """
    suffix = path.parent.name.removeprefix(name)
    if not path.is_file() or not re.fullmatch(r"(-\d+)?", suffix):
        return False
    if (study := read_or_none(path)) is not None:
        return not suffix or study.get("name") == name
    records = (read_or_none(record) for record in (path.parent / RECORDS_FOLDER).glob("*.json"))
    return any(not suffix or record.get("study") == name for record in records if record is not None)


def read_or_none(path: Path) -> JsonObject | None:
    """Return the object in a file; None if it holds none, as after a loss of power or on a failing disk."""
    try:
        return read_json(path)
    except UserError:
        return None


def tracking_of(folder: Path | str) -> TrackingSettings:
    """Return where a run is tracked, in a folder or at an address.

    Raises:
        UserError: if the folder is no run.
    """
    with at_hand(folder, (STUDY_FILE,)) as here:
        study = here / STUDY_FILE
        if not is_file(study):
            message = f"is no run folder: it has no {STUDY_FILE}"
            raise UserError(Problem(shown(folder), message, advice="e.g. runs/demo"))
        return validate(TrackingSettings, cast(JsonObject, read_json(study).get("tracking", {})), str(study))


def presentable(study: StudyConfig) -> str:
    """Return a study as JSON without passwords in its addresses."""
    return without_credentials(json.dumps(study.as_json(), indent=1))


def _candidates(out: Path, name: str) -> Iterator[Path]:
    return itertools.chain([out / name], (out / f"{name}-{number}" for number in itertools.count(2)))
