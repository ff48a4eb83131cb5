"""The hypervolume of a run's front against the device time that it took, trial by trial.

Device time is counted in two ways, neither of which depends on what the store held when the run began: with sharing,
each stage and each epoch of one where the run first has it; without, all stages of every trial from nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from analysis.findings import Findings, validation_points
from analysis.points.configurations import Configuration
from analysis.points.geometry import Points, hypervolume, non_dominated
from ubt.trials.record import StageRecord, TrialRecord


@dataclass(frozen=True)
class Grown:
    """Where a run stands when a trial has ended."""

    trial: str
    trials: int
    """How many have ended, this one included."""
    shared_seconds: float
    """Device time as if the run had begun with an empty store: a stage that its trials share counts once."""
    alone_seconds: float
    """Device time as if no trial shared anything."""
    hypervolume: float


def growth(findings: Findings) -> tuple[Grown, ...]:
    """Return the hypervolume after each trial, in the order in which they ended; of a comparison nothing.

    What may be on the front counts from when the last of its seeds was measured. Times are those of the trial's device:
    with half a GPU for a trial, half of its seconds. Trials that have not ended count last.
    """
    run = findings.run
    if run.compared or not findings.attacked:
        return ()
    device, met = run.gpus or 1.0, _Met()
    able = [one for one in findings.candidates if one.point and not one.provisional]
    waiting = {id(one): len(one.measured) for one in able}
    of_trial: dict[str, list[Configuration]] = {}
    for one in able:
        for trial in one.measured:
            of_trial.setdefault(trial.trial, []).append(one)
    points, shared, alone, reached = np.empty((0, 2)), 0.0, 0.0, 0.0
    found = []
    for number, record in enumerate(sorted(run.records, key=_ended_at), start=1):
        shared += device * sum(map(met.seconds, record.stages))
        alone += device * sum(max(stage.seconds, stage.spent_seconds) for stage in record.stages)
        for one in of_trial.get(record.trial, ()):
            waiting[id(one)] -= 1
        new = [one for one in of_trial.get(record.trial, ()) if not waiting[id(one)]]
        if new:
            points, reached = _with(points, validation_points(new), reached)
        found.append(Grown(record.trial, number, shared, alone, reached))
    return tuple(found)


def _with(front: Points, more: Points, reached: float) -> tuple[Points, float]:
    """Return a front with more points, and its hypervolume; only what is not dominated is kept."""
    lower, higher = front[:, None, 0] <= more[None, :, 0], front[:, None, 1] >= more[None, :, 1]
    if (lower & higher & (front[:, None] != more[None]).any(axis=2)).any(axis=0).all():
        return front, reached  # as most trials add nothing
    points = np.vstack([front, more])
    kept = non_dominated(points)
    return points[kept], hypervolume(points[kept])


def _ended_at(record: TrialRecord) -> tuple[bool, float, int]:
    try:
        started = datetime.fromisoformat(record.started_at)
    except ValueError:  # a record of before it was written down, or a trial that waits
        return not record.state.ended, record.seconds, record.number
    aware = started if started.tzinfo else started.replace(tzinfo=UTC)
    return not record.state.ended, aware.timestamp() + record.seconds, record.number


class _Met:
    """What of stages a run has had so far."""

    def __init__(self) -> None:
        self._keys: set[tuple[str, str]] = set()
        self._epochs: set[tuple[object, ...]] = set()

    def seconds(self, stage: StageRecord) -> float:
        """Return what of a stage's time is new. The epochs of a chain are the same in each of its trials."""
        if (stage.stage, stage.key) in self._keys:
            return 0.0
        self._keys.add((stage.stage, stage.key))
        if not stage.epochs:
            return stage.seconds
        rates = ((e, (e.val.asr, e.val.ca) if e.val else None) for e in stage.epochs)
        own = {(stage.stage, e.epoch, e.seconds, e.loss, measured): e.seconds for e, measured in rates}
        new = sum(seconds for epoch, seconds in own.items() if epoch not in self._epochs)
        self._epochs |= own.keys()
        whole = sum(own.values())
        return stage.seconds * new / whole if whole else stage.seconds
