"""What a sweep has spent so far, and whether its budget is used up."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from ubt.trials.budget import Budget, Span, Spent, counts, length, merged, spans_of
from ubt.trials.record import State, TrialRecord

_HOUR = 3600.0


class Meter:
    """Counts what trials take, those of before by their records; a listener of the session.

    Each record is taken into account when it comes, so that asking before each trial costs little.
    """

    def __init__(
        self,
        budget: Budget | None,
        gpus: float,
        known: Iterable[TrialRecord] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Count for a budget, where each trial has `gpus` GPUs."""
        self.budget = budget
        self._gpus = gpus
        self._clock = clock
        self._counted: set[str] = set()
        self._running: dict[str, TrialRecord] = {}
        self._busy: list[Span] = []
        """When a trial ran, of those that have ended: few spans, however many trials."""
        self._seconds: dict[str, float] = {}
        self._all_seconds = 0.0
        self.stopped = False
        """Said that it is used up, while trials were left."""
        for record in known:
            self._take(record.model_copy(update={"state": State.INTERRUPTED}) if not record.state.ended else record)

    def updated(self, record: TrialRecord) -> None:
        """Take note of a trial's newest record."""
        self._take(record)

    def answered(self, record: TrialRecord) -> None:
        """Nothing: it is known from before."""

    @property
    def spent(self) -> Spent:
        """Return what is spent by now."""
        now = self._clock()
        running = [span for record in self._running.values() for span in spans_of(record, now)]
        before = sum(self._seconds.get(trial, 0.0) for trial in self._running)  # what their records say, too
        busy, device = length(merged([*self._busy, *running])), self._all_seconds - before + length(running)
        return Spent(len(self._counted), busy / _HOUR, device * self._gpus / _HOUR)

    def used_up(self) -> str:
        """Return what is spent if time, GPUs or money are used up; empty otherwise. Asked while trials are left.

        The number of trials needs no watching: no more than that are proposed.
        """
        if self.budget is None or not set(self.budget.reached(spent := self.spent)) - {"trials"}:
            return ""
        self.stopped = True
        return self.budget.told(spent)

    @property
    def told(self) -> str:
        """Return what is spent of a budget in words; empty without one."""
        return self.budget.told(self.spent) if self.budget else ""

    def _take(self, record: TrialRecord) -> None:
        trial = record.trial
        (self._counted.add if counts(record) else self._counted.discard)(trial)
        if record.state is State.RUNNING:
            self._running[trial] = record
            return
        self._running.pop(trial, None)
        spans = spans_of(record)
        self._busy = merged([*self._busy, *spans])
        self._all_seconds += length(spans) - self._seconds.get(trial, 0.0)
        self._seconds[trial] = length(spans)
