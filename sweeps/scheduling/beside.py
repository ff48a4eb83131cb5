"""Stages beside a trial: what it needs later and could be computed already is, by a worker that has nothing to do.

The stages of a trial run one after the other on one worker, though not each needs the one before it: how far the clean
model trusts each pair can be worked out while the backdoor is implanted. So while a trial is at a stage that takes
long, and no other trial may start, a side run computes those of its stages behind the implant whose inputs are there.
The trial finds them in the store, or waits for them by their leases as for another sweep's. Pure logic but for a clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from sweeps.planning.trials import PlannedTrial
from sweeps.scheduling.outcomes import OwnWork
from sweeps.scheduling.stage_scheduler import StageScheduler
from ubt.engine.graph import Node
from ubt.trials.assignment import Assignment
from ubt.trials.record import TrialRecord

LONG_SECONDS = 5.0
"""How long a trial has been at its stage before others are computed beside it: a side run has its own start to pay."""


class Beside:
    """The side runs of one sweep."""

    def __init__(
        self,
        scheduler: StageScheduler[str],
        planned: Mapping[str, PlannedTrial],
        own_work: OwnWork,
        arrived: Callable[[str, bool], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._scheduler, self._planned, self._own_work, self._arrived = scheduler, planned, own_work, arrived
        self._clock = clock
        self._at: dict[str, tuple[int, float]] = {}
        """Trials that run: how many of its stages each has done, and since when."""
        self._runs: dict[str, tuple[PlannedTrial, tuple[Node, ...]]] = {}
        """By their names: whose they are, and what they compute."""
        self._tried: set[str] = set()
        """Keys of stages that a side run has been made for: once is enough."""

    def __contains__(self, run: str) -> bool:
        return run in self._runs

    def began(self, trial: str) -> None:
        """Note that a trial begins to run."""
        self._at[trial] = 0, self._clock()

    def came_on(self, record: TrialRecord) -> None:
        """Note what a trial that runs has done."""
        done = sum(stage.complete for stage in record.stages)
        if record.trial in self._at and self._at[record.trial][0] != done:
            self._at[record.trial] = done, self._clock()

    def left(self, trial: str) -> None:
        """Note that a trial does not run any more."""
        self._at.pop(trial, None)

    @property
    def ready(self) -> bool:
        """Tell whether a side run could begin."""
        return self._find() is not None

    def assignment(self) -> Assignment | None:
        """Begin a side run, if there is something to compute; return what its worker is given to do."""
        found = self._find()
        if found is None:
            return None
        planned, stages = found
        run = f"{planned.name}+{stages[0].spec.name}"
        self._runs[run] = found
        for node in stages:
            self._tried.add(node.key)
            for piece in planned.pieces(node):
                self._scheduler.elsewhere(piece)
        return planned.assignment.model_copy(update={"run": run, "only": tuple(node.key for node in stages)})

    def updated(self, run: str, record: TrialRecord) -> bool:
        """Take note of what a side run has done: its trial's own work. False if it is none."""
        if run not in self._runs:
            return False
        self._own_work.keep(record)
        planned, stages = self._runs[run]
        done = {stage.key for stage in record.stages if stage.complete}
        for piece in (piece for node in stages if node.key in done for piece in planned.pieces(node)):
            if not self._scheduler.is_done(piece):
                self._arrived(piece, True)
        return True

    def ended(self, run: str, record: TrialRecord | None = None) -> bool:
        """Take note of the end of a side run: what it left undone is its trial's again. False if it is none."""
        if record and not self.updated(run, record):
            return False
        if run not in self._runs:
            return False
        planned, stages = self._runs.pop(run)
        for node in stages:
            for piece in planned.pieces(node):
                self._arrived(piece, self._scheduler.is_done(piece))
        return True

    def _find(self) -> tuple[PlannedTrial, tuple[Node, ...]] | None:
        """Return a trial and those of its later stages that may be computed beside the one it is at.

        Not the victim's: each of them is needed next.
        """
        now = self._clock()
        for trial, (done, since) in self._at.items():
            if now - since >= LONG_SECONDS and (found := self._later(self._planned[trial], done)):
                return self._planned[trial], found
        return None

    def _later(self, planned: PlannedTrial, done: int) -> tuple[Node, ...]:
        found: dict[str, Node] = {}
        victim = next((at for at, node in enumerate(planned.pipeline) if "poisoned" in node.spec.provides), 0)
        for node in planned.pipeline[max(done, victim) + 1 :]:
            if node.key in self._tried or self._scheduler.is_done(node.key) or self._scheduler.is_elsewhere(node.key):
                continue
            if all(key in found or self._scheduler.is_done(key) for key in node.inputs.values()):
                found[node.key] = node
        return tuple(found.values())
