"""The leases of a trial's stages: of all processes that share a store, one computes a stage, and the others wait."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from ubt.artifacts.lease_watch import LOOK_SECONDS, Lease, LeaseWatch, Wait
from ubt.artifacts.leases import HeldElsewhere, Leases
from ubt.artifacts.manifest import ArtifactManifest
from ubt.artifacts.store import ArtifactStore
from ubt.common.errors import Waits
from ubt.engine.graph import Node, Pipeline

WhenPublished = Callable[[Callable[[bool], None]], None]
"""Calls something once what was made until now is published (True), or will not be."""


def slot_of(node: Node) -> str:
    """Return what a stage's lease is taken of: all lengths of a chain of epochs are one piece of work."""
    return f"{node.spec.name}/{node.chain}"


class StageLeases:
    """Takes the leases of one trial's stages, each while it is computed.

    Where another process has one, the trial ends with `Waits`, for a sweep to run others meanwhile; one that is
    `patient` waits in its place.
    """

    def __init__(
        self,
        leases: Leases,
        store: ArtifactStore,
        trial: str,
        pipeline: Pipeline,
        patient: bool = False,
        when_published: WhenPublished = lambda then: then(True),
    ) -> None:
        self._leases = leases
        self._store = store
        self._trial = trial
        self._keys = tuple(node.key for node in pipeline)
        self._patient = patient
        self._when_published = when_published

    @contextmanager
    def held(self, node: Node, looked_at: float) -> Iterator[ArtifactManifest | None]:
        """Hold a stage's lease; give its artifact if that has been published since `looked_at` (`time.monotonic()`).

        Raises:
            Waits: if another process computes the stage.
            UnusableStore: if the store cannot be read or written.
        """
        lease = self._taken(node)
        published = False
        try:
            look_again = self._leases.must_look_again(looked_at)
            yield self._store.manifest_now(node.spec.name, node.key) if look_again else None
            published = True
        finally:
            self._when_published(partial(self._release, lease, published))

    def _release(self, lease: Lease, made: bool, published: bool) -> None:
        self._leases.release(lease, made and published)

    def _taken(self, node: Node) -> Lease:
        while True:
            try:
                return self._store.patiently(lambda: self._leases.take(slot_of(node), self._trial, self._keys))
            except HeldElsewhere as held:
                if not self._patient:
                    raise Waits(node.key, f"`{node.spec.name}` is being computed by {held}") from held
            self._wait(node)

    def _wait(self, node: Node) -> None:
        files = self._store.lease_files()
        assert files is not None  # noqa: S101 — without them no lease is held
        wait = Wait(slot_of(node), self._trial, lambda: self._store.has(node.spec.name, node.key), LeaseWatch(files))
        while self._store.patiently(wait.look) is None:
            time.sleep(LOOK_SECONDS)


class ProcessLeases:
    """The leases that a process holds for the trials that it runs one after the other."""

    def __init__(self, patient: bool = False) -> None:
        self._patient = patient
        self._leases, self._root = Leases(None), ""

    def of_trial(
        self,
        store: ArtifactStore,
        trial: str,
        pipeline: Pipeline,
        when_published: WhenPublished = lambda then: then(True),
    ) -> StageLeases:
        """Return what takes the leases of a trial's stages; what is held in another store is given back.

        Each is released by `when_published`, which may be later than the end of its computing.
        """
        if self._root != store.root:
            self._leases.close()
            self._leases, self._root = Leases(store.lease_files()), store.root
        return StageLeases(self._leases, store, trial, pipeline, self._patient, when_published)

    def close(self) -> None:
        """Give everything back, for others to have it at once."""
        self._leases.close()
