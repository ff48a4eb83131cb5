"""What others hold: the leases in a store, seen by one who waits for them or wants to tidy up.

Whether a process is dead, one who waits judges by the time that passes for himself: clocks need not agree.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import quote, unquote

from ubt.artifacts.heartbeat import Heartbeat
from ubt.artifacts.lease_files import LeaseFiles
from ubt.common.formatting import duration

DEAD_SECONDS = 45.0
"""A process counts as dead when its heartbeat has not changed for so long; it writes one every ten seconds."""
LOOK_SECONDS, LEASE_SECONDS = 2.0, 6.0
"""Who waits looks so often whether an artifact is there, and whether its lease is held."""
COUNTED_SECONDS = 7.5
"""Silence is counted up to so long from one look to the next: who looks was perhaps asleep himself."""
FIRST_LINE_SECONDS, LINE_SECONDS = 30.0, 60.0
"""Who waits says so after the first of these, and then so often."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Lease:
    """The right to compute one piece of work."""

    slot: str
    """`STAGE/KEY`: of a chain of epochs, the key that all its lengths share."""
    name: str
    """Under which the slot is held, unique to this lease: `PROCESS.SERIAL.STUDY%2FTRIAL`."""

    @classmethod
    def of(cls, slot: str, process: str, serial: int, who: str) -> Lease:
        """Return a process's lease, by its number there, for a trial `STUDY/TRIAL`."""
        return cls(slot, f"{process}.{serial}.{quote(who, safe='')[:150]}")

    @property
    def process(self) -> str:
        """Return the name of the heartbeat without which the lease has no holder."""
        return self.name.partition(".")[0]

    @property
    def who(self) -> str:
        """Return `STUDY/TRIAL`."""
        return unquote((*self.name.split(".", 2), "", "")[2])


@dataclass(frozen=True)
class Look:
    """What a look at a slot has shown."""

    lease: Lease | None = None
    heartbeat: Heartbeat | None = None
    """Of the process that holds it; None if that is dead."""

    def __str__(self) -> str:
        if self.lease is None or self.heartbeat is None:
            return "nobody"
        told = f"{self.lease.who} on {self.heartbeat.host} (process {self.heartbeat.pid})"
        return "".join(letter if letter.isprintable() else "?" for letter in told)  # another one wrote it


@dataclass
class _Heard:
    content: bytes
    at: float
    silent_seconds: float = 0.0


class LeaseWatch:
    """What one process sees of the leases of others. Its judgement gets better the longer it looks."""

    def __init__(self, files: LeaseFiles, clock: Callable[[], float] = time.monotonic) -> None:
        self._files = files
        self._clock = clock
        self._heard: dict[str, _Heard] = {}

    def look(self, slot: str) -> Look:
        """Return who holds a slot."""
        name = self._files.holder(slot)
        if name is None:
            return Look()
        lease = Lease(slot, name)
        return Look(lease, self._living(lease.process))

    def _living(self, process: str) -> Heartbeat | None:
        """Return the heartbeat of a process, None if it is dead; then others need not find that out again."""
        content = self._files.heartbeat(process)
        if content is None:
            return None
        heartbeat, now = Heartbeat.read(content), self._clock()
        heard = self._heard.get(process)
        if heard is None or heard.content != content:
            heard = self._heard[process] = _Heard(content, now)
        heard.silent_seconds += min(now - heard.at, COUNTED_SECONDS)
        heard.at = now
        if heard.silent_seconds < DEAD_SECONDS and not heartbeat.gone:
            return heartbeat
        del self._heard[process]
        self._files.silence(process)
        return None


class Wait:
    """A wait for one artifact that another process computes."""

    def __init__(
        self,
        slot: str,
        waiting: str,
        there: Callable[[], bool],
        watch: LeaseWatch,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._slot = slot
        self._waiting = waiting
        self._there = there
        self._watch = watch
        self._clock = clock
        self._began = clock()
        self._looked_at = -LEASE_SECONDS
        self._line_at = self._began + FIRST_LINE_SECONDS
        self._seen = Look()

    def look(self) -> bool | None:
        """Return whether the artifact is there, or False if no process computes it any more; None while it is computed.

        Raises:
            UnusableStore: if that cannot be seen.
        """
        now = self._clock()
        if now >= self._line_at:
            self._line_at = now + LINE_SECONDS
            waited, stage = duration(now - self._began), self._slot.partition("/")[0]
            logger.warning("%s waits for `%s` since %s: %s computes it", self._waiting, stage, waited, self._seen)
        if self._there():
            return True
        if now - self._looked_at < LEASE_SECONDS:
            return None
        self._looked_at = now
        self._seen = self._watch.look(self._slot)
        return None if self._seen.heartbeat else False


def keys_in_use(files: LeaseFiles, since: datetime) -> frozenset[str]:
    """Return the keys of what trials that compute just now consist of; a heartbeat from before `since` is no sign."""
    alive = (files.heartbeat(process) for process, beaten in files.processes().items() if beaten >= since)
    heartbeats = [Heartbeat.read(content) for content in alive if content is not None]
    return frozenset(key for heartbeat in heartbeats if not heartbeat.gone for key in heartbeat.keys)


def slots_in_use(files: LeaseFiles, since: datetime) -> frozenset[str]:
    """Return the slots whose leases are held; a heartbeat from before `since` is no sign of life."""
    alive = {process for process, beaten in files.processes().items() if beaten >= since}
    return frozenset(lease.slot for lease in (Lease(*held) for held in files.slots()) if lease.process in alive)


@dataclass(frozen=True)
class DeadLeases:
    """What dead processes have left: leases that no other has taken over, and heartbeats that have stopped."""

    leases: tuple[Lease, ...] = ()
    processes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.leases) + len(self.processes)

    def remove_from(self, files: LeaseFiles) -> None:
        """Delete all of it, but for what has come alive meanwhile."""
        for lease in self.leases:
            files.free(lease.slot, lease.name)
        for process in self.processes:
            files.silence(process)


def dead_leases(files: LeaseFiles, before: datetime) -> DeadLeases:
    """Return what has no heartbeat, or one from before a time."""
    beaten = files.processes()
    silent = tuple(process for process, at in beaten.items() if at < before)
    leases = [Lease(*held) for held in files.slots()]
    return DeadLeases(tuple(one for one in leases if one.process in silent or one.process not in beaten), silent)
