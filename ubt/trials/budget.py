"""What a study may spend, and what its records say it has spent. Loads no torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Self

from pydantic import Field, model_validator

from ubt.config import Config
from ubt.trials.record import Attempt, State, TrialRecord

_HOUR = 3600.0

Span = tuple[float, float]
"""Beginning and end, in seconds since 1970."""


class BudgetUse(Config):
    """What is used of one limit of a budget."""

    limit: float
    used: float


class Budget(Config):
    """What a study may spend. After the first limit that is reached no trial is started; those that run end.

    What earlier runs of the same study have spent counts, by their records: a resume goes on counting.
    """

    trials: int | None = Field(default=None, ge=1)
    """Trials, each a configuration with one seed: the first so many of the study."""
    hours: float | None = Field(default=None, gt=0)
    """Hours in which at least one trial runs."""
    gpu_hours: float | None = Field(default=None, gt=0)
    """Hours of trials times `resources.gpus_per_trial`."""
    price: float | None = Field(default=None, gt=0)
    """What the GPU-hours may cost, in any currency."""
    price_per_gpu_hour: float | None = Field(default=None, gt=0)
    """What one of them costs."""

    @model_validator(mode="after")
    def _limits(self) -> Self:
        if not self.limits:
            raise ValueError("a budget says at least one of trials, hours, gpu_hours and price")
        if (self.price is None) != (self.price_per_gpu_hour is None):
            raise ValueError("`price` and `price_per_gpu_hour` belong together")
        return self

    @property
    def limits(self) -> dict[str, float]:
        """Return name → limit, of those that there are."""
        named = {"trials": self.trials, "hours": self.hours, "GPU-hours": self.gpu_hours, "price": self.price}
        return {name: limit for name, limit in named.items() if limit is not None}

    @property
    def needs_gpus(self) -> bool:
        """Tell whether a limit means nothing without GPUs."""
        return self.gpu_hours is not None or self.price is not None

    def used(self, spent: Spent) -> dict[str, BudgetUse]:
        """Return name → what is used of each limit."""
        price = spent.gpu_hours * (self.price_per_gpu_hour or 0.0)
        named = {"trials": spent.trials, "hours": spent.hours, "GPU-hours": spent.gpu_hours, "price": price}
        return {name: BudgetUse(limit=limit, used=named[name]) for name, limit in self.limits.items()}

    def reached(self, spent: Spent) -> tuple[str, ...]:
        """Return the names of the limits that are reached."""
        return tuple(name for name, use in self.used(spent).items() if use.used >= use.limit)

    def text(self) -> str:
        """Say the limits, as in `60 trials, 2 hours`."""
        limits = self.limits.items()
        return ", ".join(
            _amount(f"{limit:,g}", name.removesuffix("s") if limit == 1 else name) for name, limit in limits
        )

    def told(self, spent: Spent) -> str:
        """Say what is spent of each limit, and which is reached, as in `31 of 60 trials, 2.00 of 2 hours (reached)`."""
        reached = self.reached(spent)
        parts = []
        for name, use in self.used(spent).items():
            number = f"{use.used:,.0f}" if name == "trials" else f"{use.used:,.2f}"
            end = " (reached)" if name in reached else ""
            parts.append(_amount(f"{number} of {use.limit:,g}", name) + end)
        return ", ".join(parts)


def _amount(number: str, name: str) -> str:
    return f"a price of {number}" if name == "price" else f"{number} {name}"


@dataclass(frozen=True)
class Spent:
    """What a study has spent."""

    trials: int
    """That ended or run."""
    hours: float
    gpu_hours: float

    @classmethod
    def of(cls, records: Iterable[TrialRecord], gpus: float) -> Self:
        """Return what a run has spent by its records; each trial has `gpus` GPUs."""
        spans = {record.trial: (record, spans_of(record)) for record in records}
        all_spans = [span for _, of_trial in spans.values() for span in of_trial]
        counted = sum(counts(record) for record, _ in spans.values())
        return cls(counted, length(merged(all_spans)) / _HOUR, length(all_spans) * gpus / _HOUR)


def counts(record: TrialRecord) -> bool:
    """Tell whether a trial is one of those that a budget has paid for.

    One that was interrupted is yet to be run; an earlier epoch of another trial is no further configuration.
    """
    begun = (record.state.ended and not record.lost) or record.state is State.RUNNING
    return begun and not record.label.epoch_of


def spans_of(record: TrialRecord, now: float | None = None) -> list[Span]:
    """Return when a trial ran, start by start. One that runs still is taken to run until `now`, if that is given."""
    starts = record.attempts or (Attempt(started_at=record.started_at),)
    spans = []
    for place, start in enumerate(starts, 1):
        begun, ended = _seconds(start.started_at), _seconds(start.ended_at)
        if begun is not None and ended is None and place == len(starts):
            runs = now is not None and record.state is State.RUNNING
            ended = now if runs else begun + record.seconds
        if begun is not None and ended is not None and ended > begun:
            spans.append((begun, ended))
    return spans


def ended_at(record: TrialRecord) -> str:
    """Return when a trial's last run gave its last sign, in UTC, ISO 8601; empty if it does not say."""
    begun = _seconds(record.started_at)
    if begun is None:
        return ""
    return (datetime.fromtimestamp(begun, UTC) + timedelta(seconds=record.seconds)).isoformat(timespec="milliseconds")


def merged(spans: Iterable[Span]) -> list[Span]:
    """Return the times in which there is at least one span, in order."""
    found: list[Span] = []
    for start, end in sorted(spans):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((start, end))
    return found


def length(spans: Iterable[Span]) -> float:
    """Return the seconds of all spans together."""
    return sum(end - start for start, end in spans)


def _seconds(time: str) -> float | None:
    """Return a time of a record in seconds since 1970; None if it has none, or one that cannot be read."""
    try:
        at = datetime.fromisoformat(time)
    except ValueError:
        return None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
