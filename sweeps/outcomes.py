"""What a search is told of its trials: their objectives, (ASR, CA) on validation, as means over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from sweeps.search.proposer import Outcome
from ubt.records import State, TrialRecord


def outcome_of(record: TrialRecord) -> Outcome:
    """Return a trial's objectives; none if it failed."""
    if record.state is not State.DONE or record.val is None:
        return Outcome(None)
    ca_lost = record.poisoned_val.ca - record.val.ca if record.poisoned_val else None
    return Outcome((record.val.asr, record.val.ca), ca_lost)


def mean_outcome(outcomes: Sequence[Outcome]) -> Outcome:
    """Return the mean over seeds: a failure if one of them failed."""
    values = [outcome.values for outcome in outcomes]
    if any(value is None for value in values):
        return Outcome(None)
    means = tuple(fmean(column) for column in zip(*(v for v in values if v is not None), strict=True))
    lost = [outcome.ca_lost for outcome in outcomes if outcome.ca_lost is not None]
    return Outcome(means, fmean(lost) if lost else None)
