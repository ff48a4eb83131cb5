"""Seeds are replicates: trials that differ by seed alone are one configuration, measured several times."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from pydantic import JsonValue

from ubt.common.choice import Candidate
from ubt.common.statistics import bootstrap_interval
from ubt.trials.record import Rates, State, TrialRecord

BOOTSTRAP_SEED = 0


@dataclass(frozen=True)
class Estimate:
    """A rate in [0, 1] with its 95 % interval: Wilson's for one seed, bootstrapped over several.

    The latter covers the spread of the seeds, not the sampling of images, and is too narrow for few: of three seeds it
    is their range, which holds the mean about three times in four.
    """

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Outcome:
    """Attack success rate and clean accuracy on one split."""

    asr: Estimate
    ca: Estimate


@dataclass(frozen=True)
class Configuration:
    """One configuration with every trial that ran it, and the means over the seeds that are done."""

    trials: tuple[TrialRecord, ...]
    """All seeds in any state, by number; never empty."""
    measured: tuple[TrialRecord, ...]
    """The trials that are DONE and have validation rates, one a seed."""
    val: Outcome | None
    test: Outcome | None
    poisoned_val: Outcome | None
    poisoned_test: Outcome | None

    @property
    def first(self) -> TrialRecord:
        """Return the trial that stands for the configuration: the first measured one, if any is."""
        return (self.measured or self.trials)[0]

    @property
    def name(self) -> str:
        """Return the name of the trial that stands for the configuration."""
        return self.first.trial

    @property
    def number(self) -> int:
        """Return the number of the trial that stands for the configuration."""
        return self.first.number

    @property
    def changes(self) -> dict[str, JsonValue]:
        """Return what differs from the study's base."""
        return self.first.changes

    @property
    def rank(self) -> tuple[float, float, int]:
        """Return (ASR, −CA, number) on validation, to sort by: best first, those not measured last."""
        if self.val is None:
            return np.inf, np.inf, self.number
        return self.val.asr.mean, -self.val.ca.mean, self.number

    @property
    def candidate(self) -> Candidate | None:
        """Return what the choice looks at; None if the configuration or its victim has not been measured."""
        if self.val is None or self.poisoned_val is None:
            return None
        asr, ca = self.val.asr.mean, self.val.ca.mean
        return Candidate(asr, ca, self.poisoned_val.ca.mean - ca, self.number)

    @property
    def seeds(self) -> int:
        """Return how many seeds were tried, in any state."""
        return len({trial.seed for trial in self.trials})


def configurations(records: Iterable[TrialRecord]) -> tuple[Configuration, ...]:
    """Group records into configurations, in the order of their first trials."""
    groups: dict[str, list[TrialRecord]] = {}
    for record in sorted(records, key=lambda record: record.number):
        groups.setdefault(json.dumps(record.config, sort_keys=True), []).append(record)
    return tuple(_configuration(tuple(trials)) for trials in groups.values())


def _configuration(trials: tuple[TrialRecord, ...]) -> Configuration:
    done = [trial for trial in trials if trial.state is State.DONE and trial.val]
    # A seed met twice is the same measurement repeated, not a second replicate.
    measured = tuple(sorted({trial.seed: trial for trial in reversed(done)}.values(), key=lambda trial: trial.number))
    victims = measured or trials
    return Configuration(
        trials=trials,
        measured=measured,
        val=_outcome(measured, lambda trial: trial.val),
        test=_outcome(measured, lambda trial: trial.test),
        poisoned_val=_outcome(victims, lambda trial: trial.poisoned_val),
        poisoned_test=_outcome(victims, lambda trial: trial.poisoned_test),
    )


def _outcome(trials: Iterable[TrialRecord], split: Callable[[TrialRecord], Rates | None]) -> Outcome | None:
    rates = [found for trial in trials if (found := split(trial))]
    if not rates:
        return None
    return Outcome(
        asr=_estimate([Estimate(r.asr, r.asr_low, r.asr_high) for r in rates]),
        ca=_estimate([Estimate(r.ca, r.ca_low, r.ca_high) for r in rates]),
    )


def _estimate(seeds: list[Estimate]) -> Estimate:
    means = [seed.mean for seed in seeds]
    if len(set(means)) == 1:
        # Equal values (one seed, or one victim met under every seed) would bootstrap to no width at all;
        # the record holds Wilson's interval, computed from the counts.
        return seeds[0]
    # A generator of its own for each estimate: the interval does not depend on which others are computed.
    low, high = bootstrap_interval(means, np.random.default_rng(BOOTSTRAP_SEED))
    return Estimate(fmean(means), low, high)
