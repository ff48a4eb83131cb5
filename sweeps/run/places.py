"""Where runs are: in a folder, or behind an address such as s3://bucket/runs, with a working folder on this machine.

A sweep always works in a folder here. At an address, a mirror sends what changes in it within seconds, and the lease of
one sweep keeps others out. Who takes the lease and was the last to hold it goes on with the folder here; anyone else
begins with a copy of what the address has.
"""

from __future__ import annotations

import itertools
import json
import logging
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from sweeps.run import folder
from sweeps.run.folder import RunFolder
from ubt.artifacts.heartbeat import Heartbeat
from ubt.artifacts.lease_watch import DEAD_SECONDS, Lease, LeaseWatch, Look
from ubt.artifacts.leases import HeldElsewhere, Leases
from ubt.artifacts.mirror import Mirror
from ubt.artifacts.remote_folder import RemoteFolder, place_of
from ubt.common.atomic_files import write_whole
from ubt.common.errors import Problem, UserError
from ubt.common.paths import STUDY_FILE
from ubt.common.progress import waiting_for

_STAYS = ("ray", folder.LOCK_FILE, "optuna.journal")
"""What stays here: Tune's own files, this machine's lock, and Optuna's storage, which is rebuilt from the records."""
_SLOT = "sweep"
_LAST = "last"
"""The note of who held the lease last, at the address and, hidden, in the working folder."""
_LOOK_SECONDS = 2.0
_NO_LEASE = "%s makes no file for one of several writers alone: start no second sweep in this run folder"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RemoteRun(RunFolder):
    """A run folder behind an address; `path` is the working folder here."""

    address: str = ""
    mirror: Mirror | None = field(default=None, compare=False, repr=False)

    @classmethod
    def at(cls, address: str, new: str = "") -> RemoteRun:
        """Return the run at an address; nothing is looked at."""
        remote = RemoteFolder(address)
        return cls(remote.in_cache("runs"), new, remote.address)

    @property
    def remote(self) -> RemoteFolder:
        """Return the folder behind the address."""
        return RemoteFolder(self.address)

    @property
    def shown(self) -> str:
        """As of `RunFolder`."""
        return self.remote.shown

    def check_writable(self) -> None:
        """As of `RunFolder`."""
        super().check_writable()
        self.remote.note("checked", b"")

    def settle(self, at_most_seconds: float) -> None:
        """As of `RunFolder`."""
        if self.mirror:
            self.mirror.close(at_most_seconds)

    @contextmanager
    def taken(self) -> Iterator[RunFolder]:
        """As of `RunFolder`: keep other sweeps out, here and elsewhere, and keep the address up to date meanwhile."""
        run, hold = self._claimed() if self.new else (self, Hold(self.remote))
        try:
            run.path.mkdir(parents=True, exist_ok=True)
            with RunFolder(run.path).taken():
                known = run._go_on(hold)
                with Mirror(run.path, run.remote, hold.is_ours, _STAYS, as_sent=not known) as mirror:
                    yield replace(run, mirror=mirror)
        finally:
            hold.release()

    def _claimed(self) -> tuple[RemoteRun, Hold]:
        """Return a new run with the lease that makes it this sweep's; the next one if others have been quicker."""
        out = self.address.rpartition("/")[0]
        for name in _numbered(self.new):
            run = RemoteRun.at(f"{out}/{name}", self.new)
            if run.remote.read(STUDY_FILE) is None:
                try:
                    hold = Hold(run.remote, patient=False)
                except Occupied:  # by a sweep that has not written its study yet
                    continue
                if run.remote.read(STUDY_FILE) is None:
                    return run, hold
                hold.release()
        raise AssertionError("numbers do not end")

    def _go_on(self, hold: Hold) -> bool:
        """Have the newest state of the run in the working folder; tell whether it was here already."""
        mark = self.path / f".{_LAST}"
        last = self.remote.note(_LAST)
        here = last is not None and mark.is_file() and mark.read_bytes() == last
        if not here:
            for path in self.path.iterdir():
                if path.name != folder.LOCK_FILE:
                    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
            self.remote.bring(self.path)
        # First there: if this is as far as it gets, the next one here begins with what the address has.
        self.remote.note(_LAST, hold.name)
        write_whole(mark, hold.name)
        return here


class Occupied(UserError):
    """Another sweep is at work in a run folder."""


class Hold:
    """The right of this process to work in a run folder behind an address."""

    def __init__(self, remote: RemoteFolder, patient: bool = True) -> None:
        """Take it; if somebody holds it who may be dead, `patient` waits until that is known.

        Raises:
            Occupied: if another sweep is at work there.
            UnusableFolder: if the address cannot be read or written.
        """
        self._files = remote.leases()
        if self._files is None:
            logger.warning(_NO_LEASE, remote.shown)
        self._leases = Leases(self._files)
        with ExitStack() as undo:
            undo.callback(self._leases.close)
            self._lease = self._taken(remote, patient)
            undo.pop_all()

    @property
    def name(self) -> bytes:
        """Return what tells this hold from every other one."""
        return self._lease.name.encode()

    def is_ours(self) -> bool:
        """Tell whether it is not taken over: whose heartbeat cannot be written counts as dead after a while."""
        return self._files is None or self._files.holder(_SLOT) == self._lease.name

    def release(self) -> None:
        """Let others work in the folder."""
        self._leases.close()

    def _taken(self, remote: RemoteFolder, patient: bool) -> Lease:
        watch, beats, began = LeaseWatch(self._files) if self._files else None, set[int](), time.monotonic()
        with waiting_for(f"a sign of life of the sweep that was at work in {remote.shown}"):
            while True:
                try:
                    return self._leases.take(_SLOT, remote.name)
                except HeldElsewhere as held:
                    if held.look.heartbeat:
                        beats.add(held.look.heartbeat.beat)
                    alive = len(beats) > 1 or time.monotonic() - began > 2 * DEAD_SECONDS
                    if alive or not patient:
                        message = f"another sweep is at work in this run folder: {held.look}"
                        advice = "wait for it, or leave --resume out"
                        raise Occupied(Problem(remote.shown, message, advice=advice)) from held
                if watch:
                    watch.look(_SLOT)  # which frees the lease of a dead one
                time.sleep(_LOOK_SECONDS)


def run_at(place: Path | str) -> RunFolder:
    """Return the run in a folder or at an address."""
    found = place_of(place, "RUN")
    return RemoteRun.at(found) if isinstance(found, str) else RunFolder(found.absolute())


@dataclass(frozen=True)
class AtWork:
    """A sweep that works in a run folder."""

    who: str = ""
    """Its run, host and process, if that is known."""
    silent_seconds: float | None = None
    """Since its last sign of life, as far as the clocks of this machine and of the address agree."""


def sweep_at_work(place: Path | str) -> AtWork | None:
    """Return the sweep that works in a run folder; None if none does.

    Raises:
        UserError: if the address cannot be read.
    """
    found = place_of(place, "RUN")
    if isinstance(found, Path):
        return _locked(found)
    files = RemoteFolder(found).leases()
    name = files.holder(_SLOT) if files else None
    if files is None or name is None:
        return None
    lease, beaten = Lease(_SLOT, name), files.processes()
    content = files.heartbeat(lease.process)
    if content is None or lease.process not in beaten:
        return None
    heartbeat = Heartbeat.read(content)
    if heartbeat.gone:
        return None
    silent = (datetime.now(UTC) - beaten[lease.process]).total_seconds()
    return AtWork(str(Look(lease, heartbeat)), silent)


def _locked(run: Path) -> AtWork | None:
    if not (run / folder.LOCK_FILE).is_file():
        return None
    try:
        with FileLock(run / folder.LOCK_FILE, timeout=0):
            return None
    except Timeout:
        return AtWork()
    except OSError:  # not ours to lock, or on a file system without locks
        return None


def new_run(out: Path | str, name: str) -> RunFolder:
    """Return a folder that no run has used: `out/name`, then `out/name-2` and so on. It is not made yet."""
    place = place_of(out, "--out")
    if isinstance(place, Path):
        return folder.new_run(place, name)
    names = (name for name in _numbered(name) if RemoteFolder(f"{place}/{name}").read(STUDY_FILE) is None)
    return RemoteRun.at(f"{place}/{next(names)}", new=name)


def has_run(out: Path | str, name: str) -> bool:
    """Tell whether there is a run of a study to go on with."""
    place = place_of(out, "--out")
    return folder.has_run(place, name) if isinstance(place, Path) else bool(_remote_runs(place, name))


def latest_run(out: Path | str, name: str) -> RunFolder:
    """Return the run of a study that was begun or resumed last; its study lies here then.

    Raises:
        UserError: if there is none.
    """
    place = place_of(out, "--out")
    if isinstance(place, Path):
        return folder.latest_run(place, name)
    runs = _remote_runs(place, name)
    if not runs:
        advice = "leave --resume out"
        raise UserError(
            Problem("--resume", f"there is no run of `{name}` in {RemoteFolder(place).shown}", advice=advice)
        )
    newest = max(runs, key=lambda run: (run.changed_at(STUDY_FILE), len(run.name), run.name))
    found = RemoteRun.at(newest.address)
    write_whole(found.study, newest.read(STUDY_FILE) or b"")
    return found


def _remote_runs(out: str, name: str) -> list[RemoteFolder]:
    names = [found for found in RemoteFolder(out).folders() if re.fullmatch(rf"{re.escape(name)}(-\d+)?", found)]
    runs = [RemoteFolder(f"{out}/{found}") for found in names]
    return [run for run in runs if _is_of(run, name)]


def _is_of(run: RemoteFolder, name: str) -> bool:
    """Tell whether a run is of a study: `demo-2` may be a second run of `demo`, or another study's."""
    content = run.read(STUDY_FILE)
    if content is None or run.name == name:
        return content is not None
    try:
        return bool(json.loads(content)["name"] == name)
    except (ValueError, KeyError, TypeError):
        return False


def _numbered(name: str) -> Iterator[str]:
    return itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
