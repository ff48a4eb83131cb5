"""Uploads to a store at an address, while the next stage computes: one at a time, in the order of publication.

An artifact counts as published when its manifest is there, after its payloads, as ever: until then others see nothing
of it, and its lease is held. An upload that fails is tried again for as long as a trial waits for its store; then it is
given up with all behind it, which may build on it, and the trial that made it fails by that fault.
"""

from __future__ import annotations

import logging
import threading
from _thread import start_new_thread
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ubt.artifacts.manifest import ArtifactManifest
from ubt.artifacts.payloads import Content
from ubt.artifacts.store import ArtifactStore
from ubt.common.progress import PULSE

_MOST_BYTES = 2 << 30
"""More than this does not wait in memory: a stage that publishes then waits for the network."""
_LOOK_SECONDS = 1.0

logger = logging.getLogger(__name__)
Then = Callable[[bool], None]
"""Called when an artifact is published (True), or will not be."""


@dataclass(frozen=True)
class _Upload:
    manifest: ArtifactManifest
    payloads: Mapping[str, Content]


class Uploads:
    """What one process publishes in a store, beside its computing."""

    def __init__(self, store: ArtifactStore) -> None:
        self._store = store
        self._queue: deque[_Upload | Then] = deque()
        self._changed = threading.Condition()
        self._running = False
        self._error: Exception | None = None
        self._lost: list[str] = []

    def publish(self, manifest: ArtifactManifest, payloads: Mapping[str, Content]) -> ArtifactManifest:
        """Have an artifact uploaded; return its complete manifest at once. Its tensors must not change any more.

        Raises:
            UnusableStore: if an earlier upload has failed.
        """
        complete = self._store.described(manifest, payloads)
        with self._changed:
            while not self._error and self._waiting_bytes > _MOST_BYTES:
                self._wait()
        self.check()
        self._add(_Upload(complete, payloads))
        return complete

    def then(self, call: Then) -> None:
        """Call something when what was given before is published, or will not be; from another thread, or at once."""
        with self._changed:
            idle = not self._queue
        if idle:
            call(self._error is None)
        else:
            self._add(call)

    def pending(self) -> dict[str, ArtifactManifest]:
        """Return what is not published yet, by key."""
        with self._changed:
            return {one.manifest.key: one.manifest for one in self._queue if isinstance(one, _Upload)}

    def check(self) -> None:
        """Raise what an upload has failed by; what is lost with it is then known to `lost`.

        Raises:
            UnusableStore: if one has failed.
        """
        with self._changed:
            error, self._error = self._error, None
        if error:
            raise error

    def lost(self) -> list[str]:
        """Return the keys of what was not published, once."""
        with self._changed:
            lost, self._lost = self._lost, []
        return lost

    def settle(self) -> None:
        """Wait until all is published.

        Raises:
            UnusableStore: if something cannot be.
        """
        with self._changed:
            while self._queue:
                self._wait()
        self.check()

    def _wait(self) -> None:
        PULSE.wait("an upload to the store")
        self._changed.wait(_LOOK_SECONDS)

    @property
    def _waiting_bytes(self) -> int:
        return sum(one.manifest.size_bytes for one in self._queue if isinstance(one, _Upload))

    def _add(self, item: _Upload | Then) -> None:
        with self._changed:
            self._queue.append(item)
            if not self._running:
                self._running = True
                start_new_thread(self._work, ())  # an object of `Thread` would lead stages to the store

    def _work(self) -> None:
        while True:
            with self._changed:
                if not self._queue:
                    self._running = False
                    self._changed.notify_all()
                    return
                item = self._queue[0]
            if isinstance(item, _Upload):
                self._upload(item)
            else:
                self._call(item, True)
            with self._changed:
                if self._queue and self._queue[0] is item:
                    self._queue.popleft()
                self._changed.notify_all()

    def _upload(self, item: _Upload) -> None:
        try:
            self._store.put(item.manifest, item.payloads)
        except Exception as error:  # noqa: BLE001 — the trial must know of any: it is raised there
            logger.warning("`%s` cannot be published: %s", item.manifest.stage, error)
            with self._changed:
                given_up = list(self._queue)
                self._queue.clear()
                self._error = error
                self._lost += [one.manifest.key for one in given_up if isinstance(one, _Upload)]
            for one in given_up:
                if not isinstance(one, _Upload):
                    self._call(one, False)

    def _call(self, then: Then, published: bool) -> None:
        try:
            then(published)
        except Exception:
            logger.exception("what follows an upload has failed")
