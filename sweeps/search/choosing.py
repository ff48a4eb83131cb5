"""Which of a defense's settings go into the table, given what came of them on several attacks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from sweeps.search.proposer import Outcome
from ubt.metrics import keeps_accuracy

ChooseBy = Literal["mean", "worst"]


@dataclass(frozen=True)
class Score:
    """What came of one setting over the attacks, on the validation split, as fractions."""

    asr: float
    """Mean or highest."""
    ca_lost: float
    """Mean, against the poisoned models."""


def choose(outcomes: Sequence[Sequence[Outcome]], by: ChooseBy, ca_floor: float) -> int | None:
    """Return the position of the setting to choose, given `outcomes[S][A]` of S settings on A attacks.

    Lowest ASR among those that lose at most `ca_floor` of CA, on average over the attacks; if all lose more, the
    one that loses least. Ties go to the smaller loss (then the lower ASR), then to the earlier setting. A setting
    that failed on an attack is never chosen, unless all failed there: then the victim did, and the attack says
    nothing of the settings. None if nothing was measured.
    """
    told = [attack for attack in zip(*outcomes, strict=True) if any(outcome.values for outcome in attack)]
    scores = {at: score for at, row in enumerate(zip(*told, strict=True)) if (score := _score(row, by))}
    kept = {at: score for at, score in scores.items() if keeps_accuracy(score.ca_lost, ca_floor)}
    if kept:
        return min(kept, key=lambda at: (kept[at].asr, kept[at].ca_lost, at))
    return min(scores, key=lambda at: (scores[at].ca_lost, scores[at].asr, at), default=None)


def _score(row: Sequence[Outcome], by: ChooseBy) -> Score | None:
    rates = [outcome.values[0] for outcome in row if outcome.values]
    lost = [outcome.ca_lost for outcome in row if outcome.ca_lost is not None]
    if min(len(rates), len(lost)) < len(row):
        return None
    return Score(max(rates) if by == "worst" else fmean(rates), fmean(lost))
