"""How a worker computes a trial: in a thread of its own, so that it is seen when it stands still; and in its turn.

A trial that ran out of memory computes while no other one of its user does on its node or GPU. Every worker holds a
place while it computes a step. One that is to be alone waits for all places and keeps them to the end of its trial; the
others wait between two of their steps. Places are locks of the operating system: gone with their process.
"""

from __future__ import annotations

import ctypes
import fcntl
import logging
import os
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, Self

from sweeps.scheduling.retries import STALLED
from ubt.common.errors import Stalled
from ubt.common.formatting import duration
from ubt.common.progress import PULSE, Pulse
from ubt.trials.assignment import Assignment
from ubt.trials.failures import Failure
from ubt.trials.record import State, TrialRecord

_log = logging.getLogger(__name__)

_FRAMES = 12
"""The innermost ones, of a stack that is written down."""


class Work:
    """One thread that computes a worker's trials, record by record."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "trial", initializer=self._note_thread)
        self._thread: int | None = None
        self._pending: Future[TrialRecord] | None = None

    def ask(self, records: Iterator[TrialRecord]) -> None:
        """Have the next record of a trial computed, unless one is under way."""
        if self._pending is None:
            PULSE.beat()
            self._pending = self._pool.submit(next, records)

    @property
    def under_way(self) -> bool:
        """Tell whether a record is being computed."""
        return self._pending is not None

    def answer(self, timeout_seconds: float) -> TrialRecord | None:
        """Return the record that was asked for; None if it takes longer. What was raised instead is raised here."""
        assert self._pending is not None, "nothing was asked for"  # noqa: S101
        if not wait([self._pending], timeout_seconds).done:
            return None
        pending, self._pending = self._pending, None
        return pending.result()

    def where(self) -> str:
        """Return where the thread stands, as a traceback shows it."""
        return stack_of(self._thread)

    def _note_thread(self) -> None:
        self._thread = threading.get_ident()


def stack_of(thread: int | None) -> str:
    """Return where a thread stands: its innermost frames, the last one being where it is."""
    frame: Any = sys._current_frames().get(thread) if thread else None
    return "".join(traceback.format_stack(frame)[-_FRAMES:]).rstrip() if frame else "(its thread has ended)"


class Watchdog:
    """Ends a trial of this thread that stands still, with `Stalled`, as soon as Python goes on in it.

    For trials without a process of their own. What stands still outside Python cannot be ended so: it is told.
    """

    def __init__(self, assignment: Assignment, look_seconds: float = 5.0, pulse: Pulse = PULSE) -> None:
        self._assignment = assignment
        self._look_seconds = look_seconds
        self._pulse = pulse
        self._watched = threading.get_ident()
        self._over = threading.Event()
        self._ending = threading.Lock()
        self.found: tuple[str, str] | None = None
        """What stands still, and where."""

    def __enter__(self) -> Self:
        self._pulse.beat()
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        with self._ending:
            self._over.set()

    def _watch(self) -> None:
        while not self._over.wait(self._look_seconds):
            with self._ending:  # so that nothing is raised after the block
                what = "" if self._over.is_set() else stands_still(self._assignment, self._pulse)
                if what:
                    self.found = what, stack_of(self._watched)
                    _log.warning("%s; its trial is ended. It stands at:\n%s", *self.found)
                    thread, error = ctypes.c_ulong(self._watched), ctypes.py_object(Stalled)
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, error)
                    return


def limit_seconds(assignment: Assignment, stage: str) -> float:
    """Return after how long without progress a stage stands still."""
    return assignment.stall_seconds_of.get(stage, assignment.stall_seconds)


def stands_still(assignment: Assignment, pulse: Pulse = PULSE) -> str:
    """Return what stands still, in words; empty if the work comes on."""
    limit, silent = limit_seconds(assignment, pulse.stage), pulse.silent_seconds
    if not limit or silent <= limit:
        return ""
    return f"`{pulse.stage or 'the trial'}` has not come on for {duration(silent)}"


def stalled_record(record: TrialRecord, what: str, where: str) -> TrialRecord:
    """Return the record of a run that was ended as it stood still, with where it stood."""
    reason = f"{what}\nIt stood at:\n{where}"
    ended = {"state": State.FAILED, "reason": reason, "fault": STALLED, "lost": True, "failure": Failure.FAULT}
    return record.model_copy(update=ended)


NODE = "node"


class Turns:
    """One worker's part in the turns at its node and at each of its GPUs."""

    def __init__(self, folder: Path, gpus: Sequence[str] = ()) -> None:
        self._folder = folder
        self._gpus = tuple(f"gpu-{gpu}" for gpu in sorted(gpus))
        self._held: dict[str, int] = {}
        """Name of a lock → its open file."""

    def enter(self, alone: str = "") -> bool:
        """Take a place everywhere, or all places where this trial is to be `alone` (`gpu`, `node`); False if not yet.

        Where a trial that is to be alone has begun to wait, no other one enters.
        """
        exclusive = {"": (), "gpu": self._gpus or (NODE,), NODE: (NODE, *self._gpus)}[alone]
        entered = all(self._enter(name, name in exclusive) for name in (NODE, *self._gpus))  # always in this order
        if not entered and not alone:
            self.leave()
        return entered

    def leave(self) -> None:
        """Give up the places: after each step, of a trial that is alone after its last."""
        for file in self._held.values():
            os.close(file)
        self._held.clear()

    def _enter(self, name: str, exclusive: bool) -> bool:
        if exclusive:  # and keep others from entering while it waits for those that are in
            return self._lock(f"{name}.turn", fcntl.LOCK_EX) and self._lock(f"{name}.shared", fcntl.LOCK_EX)
        if f"{name}.shared" in self._held:
            return True
        if not self._lock(f"{name}.turn", fcntl.LOCK_SH):
            return False
        entered = self._lock(f"{name}.shared", fcntl.LOCK_SH)
        if (turn := self._held.pop(f"{name}.turn", None)) is not None:  # else this node has no locks
            os.close(turn)
        return entered

    def _lock(self, name: str, how: int) -> bool:
        if name in self._held:
            return True
        try:
            file = os.open(self._folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            return True  # a node without a place for locks has no turns
        try:
            fcntl.flock(file, how | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            return False
        except OSError:
            pass  # nor has a file system without locks
        self._held[name] = file
        return True
