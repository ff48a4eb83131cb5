"""What a run was planned to take against what it took, in numbers and in words."""

from __future__ import annotations

from collections import Counter

from pydantic import Field

from analysis.records import RunRecords
from ubt.common.formatting import duration
from ubt.config import Config


class StageTimes(Config):
    """Seconds of one stage over all trials."""

    planned: float | None
    """Null if it was unknown."""
    actual: float
    """Of the planned trials, without what was reused."""


class PlannedTimes(Config):
    """What was planned when the run began, and what it took."""

    stages: dict[str, StageTimes]
    planned: float | None
    """Seconds of all stages; null if those of one were unknown."""
    actual: float
    """Seconds of all stages of the planned trials."""
    later: float = 0.0
    """Seconds of the stages of trials that no plan knows of: of earlier epochs that came onto the front."""
    later_trials: int = 0
    factor: float | None
    """How many times as long as planned the stages took of which that was known; null if it was of none."""
    wall_planned: float | None
    """Seconds, for so many workers: without their start, and without waiting."""
    workers: int
    unknown: tuple[str, ...] = Field(default=())
    """Stages that were computed, and of which it was not known how long they would take."""


def planned_times(run: RunRecords) -> PlannedTimes | None:
    """Return the comparison; None for a run without a plan, as those of version 0.1."""
    plan = run.planned
    if plan is None:
        return None
    actual: Counter[str] = Counter()
    for stage in (stage for record in run.records if not record.label.epoch_of for stage in record.stages):
        actual[stage.stage] += stage.spent_seconds  # type: ignore[assignment]  # a Counter of seconds
    later = [record for record in run.records if record.label.epoch_of]
    names = dict.fromkeys([*plan.seconds, *actual])
    stages = {name: StageTimes(planned=plan.seconds.get(name), actual=float(actual[name])) for name in names}
    known = [stage for stage in stages.values() if stage.planned]
    planned = sum(stage.planned or 0.0 for stage in known)
    unknown = tuple(name for name, stage in stages.items() if stage.planned is None and stage.actual)
    return PlannedTimes(
        stages=stages,
        planned=None if unknown else planned,
        actual=sum(stage.actual for stage in stages.values()),
        later=sum(stage.spent_seconds for record in later for stage in record.stages),
        later_trials=len(later),
        factor=sum(stage.actual for stage in known) / planned if planned else None,
        wall_planned=plan.wall_seconds,
        workers=plan.workers,
        unknown=unknown,
    )


def planned_text(times: PlannedTimes, wall_seconds: float) -> str:
    """Return the comparison in one line."""
    later = ""
    if times.later_trials:
        later = f"; trials of earlier epochs, {times.later_trials} of them, took {duration(times.later)} more"
    if times.factor is None:
        return f"planned: unknown; took {duration(times.actual)} of stages{later}"
    known = sum(stage.planned or 0.0 for stage in times.stages.values())
    rest = f", without {', '.join(times.unknown)}, which were unknown" if times.unknown else ""
    wall = (
        "" if times.wall_planned is None else f"; {duration(wall_seconds)} of {duration(times.wall_planned)} at least"
    )
    took = sum(stage.actual for stage in times.stages.values() if stage.planned)
    return f"planned {duration(known)} of stages, took {duration(took)} ({times.factor:.2f} ×){rest}{later}{wall}"
