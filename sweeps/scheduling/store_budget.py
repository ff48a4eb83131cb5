"""A store's budget while a sweep runs: what goes so that artifacts take no more, by what the plan and the front need.

A thread of its own looks after trials have ended. It knows trials as they are planned, and how they ended, as a
listener of the session; what other sweeps on the store need it sees by their leases.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from analysis.findings import find
from analysis.records import read_run
from sweeps.planning.trials import PlannedTrial
from sweeps.scheduling.outcomes import Planner
from sweeps.search.proposals import Proposal
from ubt.artifacts.lease_watch import keys_in_use
from ubt.artifacts.store import ArtifactStore, UnfinishedStore
from ubt.artifacts.upkeep.budget import Excess, Needs, excess
from ubt.common.errors import UserError
from ubt.common.formatting import size
from ubt.engine.graph import Node
from ubt.trials.record import TrialRecord

_LOOK_SECONDS = 30.0
"""A store is looked through no more often: of one at an address that is a listing, and a call for each new artifact."""
_ALIVE = timedelta(minutes=10)
"""A process that has given no sign of life for so long holds nothing."""

logger = logging.getLogger(__name__)


def keys_of_front(run: Path) -> frozenset[str]:
    """Return the keys of all artifacts of the trials that are on a run's front, or chosen.

    Raises:
        UserError: if the run folder cannot be read.
    """
    findings = find(read_run(run))
    members = (*findings.front, *filter(None, [findings.chosen]))
    return frozenset(stage.key for one in members for trial in one.trials for stage in trial.stages)


class StoreBudget:
    """Keeps a store within a budget while a sweep runs."""

    def __init__(self, budget_bytes: int, store: str, front: Callable[[], frozenset[str]]) -> None:
        """Keep a store within so many bytes; `front` returns the keys that go last."""
        self._budget_bytes = budget_bytes
        self._store = ArtifactStore(store)
        self._front = front
        self._keys: dict[str, frozenset[str]] = {}
        """Key of a trial's last stage → all that the trial needs."""
        self._last: dict[str, str] = {}
        """Trial → the key of its last stage."""
        self._ended: set[str] = set()
        self._wake, self._closed = threading.Event(), threading.Event()
        self._said_over = False
        self._thread = threading.Thread(target=self._look, name="store budget", daemon=True)

    def begin(self) -> None:
        """Look after the store from now on."""
        self._thread.start()

    def watching(self, planner: Planner) -> Planner:
        """Return what plans trials, which are then known here."""

        def planned(proposal: Proposal, position: int) -> PlannedTrial:
            trial = planner(proposal, position)
            last = trial.pipeline[-1].key
            self._last[trial.name] = last
            if last not in self._keys:
                kept = trial.assignment.keep_epochs
                self._keys[last] = frozenset(key for node in trial.pipeline for key in _keys_of(node, kept))
            return trial

        return planned

    def updated(self, record: TrialRecord) -> None:
        """Take note of a trial's newest record."""
        if record.state.ended and not record.lost:
            self.answered(record)
            self._wake.set()

    def answered(self, record: TrialRecord) -> None:
        """Take note of a trial that has ended."""
        if record.trial in self._last:
            self._ended.add(self._last[record.trial])

    def apply(self) -> Excess | None:
        """Remove what has to go; return what that was, None if the store cannot be looked through."""
        try:
            found = self._excess()
            for manifest in found.leaving:
                self._store.remove(manifest)
        except (UserError, OSError) as error:
            logger.warning("the store cannot be kept within its budget: %s", error)
            return None
        if found.leaving:
            gone = sum(manifest.size_bytes for manifest in found.leaving)
            logger.warning("store: %d artifacts, %s removed for its budget", len(found.leaving), size(gone))
        if found.over_bytes and not self._said_over:
            self._said_over = True
            needed, more = size(found.size_bytes), size(found.over_bytes)
            logger.warning("store: the trials that are left need %s, %s more than its budget", needed, more)
        return found

    def close(self) -> None:
        """Look a last time, when nothing is left to run, and no more."""
        self._closed.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(_LOOK_SECONDS)
        self.apply()

    def _look(self) -> None:
        while not self._closed.is_set():
            self._wake.wait()
            self._wake.clear()
            if not self._closed.is_set():
                self.apply()
            self._closed.wait(_LOOK_SECONDS)

    def _excess(self) -> Excess:
        manifests = list(self._store.manifests())
        others = sum(one.size_bytes for one in UnfinishedStore(self._store.root).manifests())
        size_bytes = sum(one.size_bytes for one in manifests) + others
        if size_bytes <= self._budget_bytes:  # before the whole run is read for its front
            return Excess((), size_bytes, 0)
        return excess(manifests, self._budget_bytes, self._needs(), self._store.used_at, others)

    def _needs(self) -> Needs:
        leases = self._store.lease_files()
        computed = keys_in_use(leases, datetime.now(UTC) - _ALIVE) if leases else frozenset()
        open_ = [keys for last, keys in list(self._keys.items()) if last not in self._ended]
        return Needs(computed, frozenset().union(*open_), self._front())


def _keys_of(node: Node, kept: Mapping[str, tuple[int, ...]]) -> Sequence[str]:
    """Return a stage's key, and those of earlier epochs that it may continue from."""
    earlier = [epoch for epoch in kept.get(node.spec.name, ()) if epoch < node.epochs] if node.spec.epochs else []
    return (node.key, *(node.at(epoch).key for epoch in earlier))
