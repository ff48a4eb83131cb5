"""How long a stage may go without progress: from how long it has taken before, or as the study says."""

from __future__ import annotations

from collections.abc import Iterable

from ubt.trials.record import TrialRecord

LEAST_SECONDS = 30 * 60.0
"""What every stage is given, unless the study says otherwise: our own show progress every few seconds."""
TIMES = 5
"""And so many times the longest that it has ever taken as a whole: one of a plug-in may show none until it is done."""


class StageTimes:
    """How long each stage has taken at most, as far as records say."""

    def __init__(self, records: Iterable[TrialRecord] = (), minutes: float | None = None) -> None:
        self._minutes = minutes
        self._longest: dict[str, float] = {}
        for record in records:
            self.note(record)

    def note(self, record: TrialRecord) -> None:
        """Take note of the stages that a trial has computed or found in the store."""
        for stage in record.stages:
            if stage.complete:
                self._longest[stage.stage] = max(stage.seconds, self._longest.get(stage.stage, 0.0))

    @property
    def seconds(self) -> float:
        """Return what a stage is given of which nothing else is known."""
        return LEAST_SECONDS if self._minutes is None else 60 * self._minutes

    @property
    def seconds_of(self) -> dict[str, float]:
        """Return what stages are given that take long."""
        if self._minutes is not None:
            return {}
        return {stage: TIMES * most for stage, most in self._longest.items() if TIMES * most > LEAST_SECONDS}
