"""Leases: who computes a piece of work just now, so that processes that share a store do nothing twice.

A process takes the lease of a piece of work (a stage, or a chain of epochs) before it computes it, and releases it
when the artifact is published. As long as it holds any, it writes a heartbeat, one for all. A process whose heartbeat
does not change any more is dead, and its leases can be taken.

A process that was only asleep may find its work done by another one. That costs time and nothing else: equal work gives
equal artifacts.
"""

from __future__ import annotations

import atexit
import logging
import threading
import time
import uuid
from _thread import start_new_thread
from collections.abc import Callable, Sequence
from contextlib import suppress

from ubt.artifacts.heartbeat import own_heartbeat
from ubt.artifacts.lease_files import LeaseFiles
from ubt.artifacts.lease_watch import Lease, LeaseWatch, Look

BEAT_SECONDS = 10.0
"""A heartbeat is written so often."""
IDLE_SECONDS = 60.0
"""A process that has taken no lease for so long stops its heartbeat."""
LINGER_SECONDS = 1.0
"""How long a lease outlives the publication of its artifact, for those who looked for that just before."""
NO_LEASES = "%s makes no file for one of several writers alone: sweeps that share it may compute a stage twice"

_TRIES = 5

logger = logging.getLogger(__name__)


class HeldElsewhere(Exception):
    """Another process computes this."""

    def __init__(self, look: Look) -> None:
        super().__init__(str(look))
        self.look = look


class Leases:
    """The leases that this process holds in one store. Without `files` it has all that it asks for."""

    def __init__(
        self, files: LeaseFiles | None, clock: Callable[[], float] = time.monotonic, beats_alone: bool = True
    ) -> None:
        self._files = files
        self._clock = clock
        self._beats_alone = beats_alone
        self._lock = threading.RLock()
        self._wake = threading.Event()
        self._process = ""
        self._heartbeat = own_heartbeat()
        self._beat_at = self._used_at = 0.0
        self._serial = 0
        self._held: dict[str, Lease] = {}
        self._lingering: list[tuple[float, Lease]] = []

    def take(self, slot: str, who: str, keys: Sequence[str] = ()) -> Lease:
        """Take the lease of a piece of work; `keys` are those of all artifacts that the trial consists of.

        Raises:
            HeldElsewhere: if another process has it.
            UnusableStore: if the store cannot be read or written.
        """
        with self._lock:
            files = self._come_alive(tuple(keys))
            self._serial += 1
            lease = Lease.of(slot, self._process, self._serial, who)
            if files is None:
                return lease
            watch, look = LeaseWatch(files, self._clock), Look()
            for _ in range(_TRIES):
                if files.take(slot, lease.name):
                    self._held[slot] = lease
                    return lease
                look = watch.look(slot)
                if look.heartbeat and look.lease and look.lease.process != self._process:
                    break
                if look.lease:
                    files.free(slot, look.lease.name)
            raise HeldElsewhere(look)

    def must_look_again(self, looked_at: float) -> bool:
        """Tell whether an artifact may be there that was not at a time before its lease was taken, which it is now.

        The process that published it in between has kept its lease for a while, so that it could not be taken then.
        """
        return self._files is not None and (
            self._files.looks_may_be_old or self._clock() - looked_at > LINGER_SECONDS / 2
        )

    def release(self, lease: Lease, published: bool) -> None:
        """Give a lease back: at once, or if its artifact is published, a little later."""
        with self._lock:
            if self._files is None or self._held.pop(lease.slot, None) is None:
                return
            self._used_at = self._clock()
            if published and not self._files.looks_may_be_old:
                self._lingering.append((self._used_at + LINGER_SECONDS, lease))
                self._wake.set()
                return
        self._free(lease)

    def tick(self) -> float | None:
        """Do what is due; return the seconds until something is, or None if nothing will be."""
        with self._lock:
            if not self._process or self._files is None:
                return None
            now = self._clock()
            for until, lease in self._lingering:
                if until <= now:
                    self._free(lease)
            self._lingering = [(until, lease) for until, lease in self._lingering if until > now]
            if not self._held and not self._lingering and now - self._used_at >= IDLE_SECONDS:
                self._fall_silent()
                return None
            if now - self._beat_at >= BEAT_SECONDS:
                self._beat(self._files)
            due = [self._beat_at + BEAT_SECONDS, *(until for until, _ in self._lingering)]
            return max(0.1, min(due) - self._clock())

    def close(self) -> None:
        """Release everything; the next `take` begins anew."""
        with self._lock:
            if not self._process:
                return
            lasting = max((until - self._clock() for until, _ in self._lingering), default=0.0)
            if lasting > 0:
                time.sleep(lasting)
            for lease in (*self._held.values(), *(lease for _, lease in self._lingering)):
                self._free(lease)
            self._held, self._lingering = {}, []
            self._fall_silent()
            self._wake.set()

    def _come_alive(self, keys: tuple[str, ...]) -> LeaseFiles | None:
        """Have a heartbeat in the store that is new enough: nothing is held without."""
        self._used_at = self._clock()
        self._heartbeat = self._heartbeat.model_copy(update={"keys": keys})
        if self._files is None:
            return None
        if self._process:
            if self._used_at - self._beat_at > 2 * BEAT_SECONDS:
                self._beat(self._files)
            return self._files
        process = uuid.uuid4().hex[:12]
        if not self._files.announce(process, self._content):
            self._files.silence(process)
            logger.warning(NO_LEASES, "this S3 server")
            self._files = None
            return None
        self._process, self._beat_at = process, self._used_at
        if self._beats_alone:
            atexit.register(self.close)
            start_new_thread(self._keep_beating, (process,))  # an object of `Thread` would lead to the store's path
        return self._files

    def _keep_beating(self, process: str) -> None:
        seconds: float | None = BEAT_SECONDS
        while seconds is not None:
            self._wake.wait(seconds)
            self._wake.clear()
            seconds = self.tick() if self._process == process else None

    def _beat(self, files: LeaseFiles) -> None:
        self._beat_at = self._clock()
        self._heartbeat = self._heartbeat.model_copy(update={"beat": self._heartbeat.beat + 1})
        try:
            files.beat(self._process, self._content)
        except OSError as error:
            self._beat_at -= BEAT_SECONDS / 2
            logger.warning("the heartbeat cannot be written, others may take over what is computed here: %s", error)

    @property
    def _content(self) -> bytes:
        return self._heartbeat.model_dump_json().encode()

    def _fall_silent(self) -> None:
        process, self._process = self._process, ""
        atexit.unregister(self.close)
        with suppress(OSError):  # it does not change any more, which is as good
            if self._files:
                self._files.silence(process)

    def _free(self, lease: Lease) -> None:
        with suppress(OSError):  # it is free once the heartbeat has stopped
            if self._files:
                self._files.free(lease.slot, lease.name)
