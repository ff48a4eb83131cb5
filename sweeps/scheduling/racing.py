"""Seeds raced instead of fixed: further ones for configurations of which it is open what they come to.

Every configuration runs with the first `min` seeds, and the search learns from these means. When the search has
ended, rounds follow: each configuration that still competes runs with its next seed, until none competes or has seeds
left. A round begins when the one before it has ended, so the same trials are run on any number of workers.

Who competes is drawn: rates of a configuration scatter from seed to seed, after what each seed does to all of them
alike is taken off, and that scatter is pooled over configurations, as two seeds of one tell little. Of 1,000 draws of
all means some have it chosen, or on the front, and others do not: it competes while both are at least 5 %.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from sweeps.scheduling.outcomes import mean_outcome
from sweeps.search.proposals import Outcome, Proposal, Proposer
from sweeps.study.config import Race, StudyConfig
from ubt.common.choice import keeps_accuracy
from ubt.common.hashing import numpy_generator

Rates = NDArray[np.float64]

DRAWS = 1000
OPEN = 0.05
"""A configuration competes while at least this share of the draws says either."""


def raced(proposer: Proposer, study: StudyConfig) -> Proposer:
    """Return what proposes a study's configurations, with further seeds for those that compete, if seeds are raced."""
    return Raced(proposer, study.race, len(study.seeds), study.ca_floor) if study.race else proposer


class Raced:
    """Proposes each configuration seed by seed."""

    def __init__(self, proposer: Proposer, race: Race, seeds: int, ca_floor: float) -> None:
        self._proposer = proposer
        self._race = race
        self._seeds = seeds
        self._ca_floor = ca_floor
        self._queue: deque[Proposal] = deque()
        self._open = 0
        self._proposals: dict[int, Proposal] = {}
        self._outcomes: dict[int, dict[int, Outcome]] = {}
        """Number of a configuration → position of a seed → its outcome."""
        self._rounds = 0

    @property
    def exhausted(self) -> bool:
        """Tell whether there will be no further proposal."""
        self._next_round()
        return self._proposer.exhausted and not self._open and not self._queue

    def propose(self) -> Proposal | None:
        """Return the next configuration with one of its seeds; None before outcomes that decide it are known."""
        self._next_round()
        if not self._queue and not self._proposer.exhausted and (proposal := self._proposer.propose()) is not None:
            self._proposals[proposal.number] = proposal
            self._queue.extend(_with_seed(proposal, position) for position in range(self._race.min))
        if not self._queue:
            return None
        self._open += 1
        return self._queue.popleft()

    def tell(self, proposal: Proposal, outcome: Outcome) -> None:
        """Take note of what came of a configuration with one seed; the search learns of the mean of the first ones."""
        self._open -= 1
        outcomes = self._outcomes.setdefault(proposal.number, {})
        outcomes[proposal.first] = outcome
        if len(outcomes) == self._race.min and proposal.first < self._race.min:
            self._proposer.tell(
                self._proposals[proposal.number], mean_outcome([outcomes[at] for at in sorted(outcomes)])
            )

    def finish(self) -> None:
        """Settle what is open."""
        self._proposer.finish()

    def _next_round(self) -> None:
        """Have the next seed of each configuration that competes proposed, when all that was proposed has ended."""
        if self._queue or self._open or not self._proposer.exhausted or self._rounds == self._seeds:
            return
        self._rounds += 1
        rates, lost = {}, {}
        for number, outcomes in sorted(self._outcomes.items()):
            values = [outcomes[at].values for at in sorted(outcomes)]
            if all(value is not None for value in values):
                rates[number] = [(value[0], value[1]) for value in values if value is not None]
                lost[number] = mean_outcome(list(outcomes.values())).ca_lost or 0.0
        competing = competitors(rates, lost, self._race, self._ca_floor)
        self._queue.extend(
            _with_seed(self._proposals[number], len(rates[number]))
            for number in competing
            if len(rates[number]) < self._seeds
        )


def _with_seed(proposal: Proposal, position: int) -> Proposal:
    return replace(proposal, first=position, replicates=position + 1)


def competitors(
    rates: Mapping[int, Sequence[tuple[float, float]]],
    lost: Mapping[int, float],
    race: Race,
    ca_floor: float,
) -> list[int]:
    """Return the configurations that compete, given the (ASR, CA) of each under the first so many seeds.

    `lost` is the clean accuracy that each has lost on average, for the choice. None competes where all seeds agree.
    """
    numbers = list(rates)
    if len(numbers) < 2:
        return []
    means, spread = adjusted_means([rates[number] for number in numbers])
    rng = numpy_generator(0, "race", sum(map(len, rates.values())))
    drawn = means + rng.multivariate_normal(np.zeros(2), spread, (DRAWS, len(numbers))) * _scale(rates)
    losses = np.array([lost[number] for number in numbers]) + means[:, 1] - drawn[:, :, 1]
    hits = [np.array([_chosen(draw[:, 0], loss, ca_floor) for draw, loss in zip(drawn, losses, strict=True)])]
    if race.by == "front":
        hits.append(np.array([_on_front(draw) for draw in drawn]))
    shares = [hit.mean(axis=0) for hit in hits]
    is_open = [any(OPEN <= share[at] <= 1 - OPEN for share in shares) for at in range(len(numbers))]
    return [number for number, one in zip(numbers, is_open, strict=True) if one]


def adjusted_means(rates: Sequence[Sequence[tuple[float, float]]]) -> tuple[Rates, Rates]:
    """Return the means `[C, 2]` of C configurations without what seeds do to all, and the covariance of one run.

    The effect of a seed is its mean difference from the configurations' own means over the seeds that all have; so
    configurations with few seeds compare with those that have more.
    """
    common = min(map(len, rates))
    own = np.array([np.mean(values[:common], axis=0) for values in rates])
    effects = []
    for at in range(max(map(len, rates))):
        off = [np.subtract(values[at], mean) for values, mean in zip(rates, own, strict=True) if len(values) > at]
        effects.append(np.mean(off, axis=0))
    adjusted = [np.array(values) - np.array(effects[: len(values)]) for values in rates]
    means = np.array([values.mean(axis=0) for values in adjusted])
    residuals = np.concatenate([values - mean for values, mean in zip(adjusted, means, strict=True)])
    freedom = max(1, len(residuals) - len(rates) - (len(effects) - 1))
    return means, residuals.T @ residuals / freedom


def _scale(rates: Mapping[int, Sequence[tuple[float, float]]]) -> Rates:
    return np.array([[1 / math.sqrt(len(values))] for values in rates.values()])


def _on_front(points: Rates) -> NDArray[np.bool_]:
    """Return which of `points[C, 2]` (ASR, CA) no other is better than in both rates."""
    order = np.lexsort((-points[:, 1], points[:, 0]))
    best_before = np.concatenate(([-np.inf], np.maximum.accumulate(points[order, 1])[:-1]))
    kept = np.zeros(len(points), dtype=bool)
    kept[order] = points[order, 1] > best_before
    return kept


def _chosen(asr: Rates, lost: Rates, ca_floor: float) -> NDArray[np.bool_]:
    """Return which one would be chosen: the lowest ASR within the floor, or else the least loss of accuracy."""
    able = np.array([keeps_accuracy(float(one), ca_floor) for one in lost])
    best = np.where(able, asr, np.inf).argmin() if able.any() else lost.argmin()
    chosen = np.zeros(len(asr), dtype=bool)
    chosen[best] = True
    return chosen
