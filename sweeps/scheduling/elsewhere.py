"""Stages that other sweeps on the same store compute, and trials of this one wait for.

A thread looks whether they are there yet, as a store may take its time to answer; the session is told when it asks.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from queue import Empty, SimpleQueue

from ubt.artifacts.lease_watch import LOOK_SECONDS, LeaseWatch, Wait
from ubt.artifacts.leases import NO_LEASES
from ubt.artifacts.store import ArtifactStore
from ubt.engine.graph import Node
from ubt.engine.stage_leases import slot_of

logger = logging.getLogger(__name__)

UNSEEN_SECONDS = 120.0
"""How long a store may not answer before the trials that wait go on, and tell of it by what they meet."""


class Elsewhere:
    """Looks for stages in a store until they are there, or no process computes them any more."""

    def __init__(self, store: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = ArtifactStore(store)
        self._clock = clock
        self._unseen_since: float | None = None
        """Since when the store does not answer; None if it does."""
        files = self._store.lease_files()
        self._watch = LeaseWatch(files) if files else None
        self._waits: dict[str, Wait] = {}
        self._arrived: SimpleQueue[tuple[str, bool]] = SimpleQueue()
        self._lock = threading.Lock()
        if files is None:
            logger.warning(NO_LEASES, f"the store {store}")

    @cached_property
    def leases_hold(self) -> bool:
        """Tell whether two processes that want one lease do not both get it in this store."""
        files, process = self._store.lease_files(), f"probe-{uuid.uuid4().hex}"
        if files is None:
            return False
        try:
            hold = files.announce(process, b"")
            files.silence(process)
        except OSError:
            return False
        return hold

    def wait_for(self, node: Node, trial: str) -> None:
        """Look for a stage that a trial needs."""
        if self._watch is None:
            self._arrived.put((node.key, False))
            return
        wait = Wait(slot_of(node), trial, lambda: self._store.has(node.spec.name, node.key), self._watch)
        with self._lock:
            idle = not self._waits
            self._waits.setdefault(node.key, wait)
        if idle:
            threading.Thread(target=self._look, name="waits", daemon=True).start()

    def arrivals(self) -> list[tuple[str, bool]]:
        """Return the stages that are there, and those (False) that no process computes any more, each once."""
        found = []
        with suppress(Empty):
            while True:
                found.append(self._arrived.get_nowait())
        return found

    def _look(self) -> None:
        """Look every few seconds as long as something is waited for."""
        pause = threading.Event()
        while True:
            with self._lock:
                waits = list(self._waits.items())
            for key, wait in waits:
                if (there := self._seen(wait)) is not None:
                    with self._lock:
                        del self._waits[key]
                    self._arrived.put((key, there))
            with self._lock:
                if not self._waits:
                    return
            pause.wait(LOOK_SECONDS)

    def _seen(self, wait: Wait) -> bool | None:
        """Return what a look has shown; a trial that is let go on meets the fault behind an unforeseen error itself."""
        try:
            seen = wait.look()
            self._unseen_since = None
            return seen
        except OSError as error:  # the store does not answer: perhaps the next time
            now = self._clock()
            if self._unseen_since is None:
                self._unseen_since = now
                text = "stages of other sweeps are waited for, and cannot be seen: %s"
                logger.warning(text, str(error).partition("\n")[0])
            return False if now - self._unseen_since > UNSEEN_SECONDS else None
        except Exception:
            logger.exception("a stage cannot be waited for; the trial that needs it goes on")
            return False
