"""Configurations of a run with their means over seeds, each at its end or at an earlier epoch.

Seeds are replicates: trials that differ by seed alone are one configuration, measured several times.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import Literal

import numpy as np
from pydantic import JsonValue

from ubt.common.choice import Candidate, Seen, mean_seen
from ubt.common.statistics import t_interval
from ubt.config import set_path
from ubt.config.dotted_paths import JsonObject
from ubt.trials.rates import Rates
from ubt.trials.record import EpochRecord, StageRecord, State, TrialRecord

Split = Literal["val", "test"]


@dataclass(frozen=True)
class Estimate:
    """A rate in [0, 1] with its 95 % interval: Wilson's for one seed, Student's over several, cut at 0 and 1.

    The latter is of the spread of seeds, which the sampling of images is a part of; of two seeds it is very wide.
    """

    mean: float
    low: float
    high: float

    @property
    def interval(self) -> str:
        """Return the interval in percent: `2.6–5.0`."""
        return f"{100 * self.low:.1f}–{100 * self.high:.1f}"


@dataclass(frozen=True)
class Outcome:
    """Attack success rate and clean accuracy on one split."""

    asr: Estimate | None
    """None if no attack is known."""
    ca: Estimate

    @property
    def point(self) -> tuple[float, float] | None:
        """Return the means (ASR, CA), where the model lies in their plane; None if no attack is known."""
        return (self.asr.mean, self.ca.mean) if self.asr else None


@dataclass(frozen=True)
class AtEpoch:
    """Which earlier epoch of a configuration is meant. With so many epochs it would end there: a shorter one."""

    number: int
    """From 1, in the stage that makes the defended model."""
    setting: str
    """Dotted path of the setting that counts that stage's epochs."""
    stage: str


@dataclass(frozen=True)
class Configuration:
    """One configuration with every trial that ran it, and the means over the seeds that are done.

    At its end, or at an earlier epoch: then the rates are of the models after that epoch.
    """

    trials: tuple[TrialRecord, ...]
    """All seeds in any state, by number; never empty."""
    measured: tuple[TrialRecord, ...]
    """The trials that are DONE and have validation rates, or have judged the epoch: the first of each seed, by
    number."""
    val: Outcome | None
    test: Outcome | None
    """At an earlier epoch None: a trial that ends there measures it."""
    poisoned_val: Outcome | None
    poisoned_test: Outcome | None
    at: AtEpoch | None = None
    """The earlier epoch that is meant; None for the end."""
    provisional: bool = False
    """Some rate is of a part of the validation split, good enough to look further and not to choose by."""

    @property
    def first(self) -> TrialRecord:
        """Return the trial that stands for the configuration: the first measured one, if any is."""
        return (self.measured or self.trials)[0]

    @property
    def name(self) -> str:
        """Return the name of the trial that stands for the configuration, `t0007`; at an earlier epoch `t0007@3`."""
        return f"{self.first.trial}@{self.at.number}" if self.at else self.first.trial

    @property
    def title(self) -> str:
        """Return what readers call it: `t0007`, also where the trial that stands for it is `t0007-s0` of several."""
        trial = self.first.trial.removesuffix(f"-s{self.first.seed}") if self.seeds > 1 else self.first.trial
        return f"{trial}@{self.at.number}" if self.at else trial

    @property
    def number(self) -> int:
        """Return the number of the trial that stands for the configuration."""
        return self.first.number

    @property
    def changes(self) -> dict[str, JsonValue]:
        """Return what differs from the study's base: dotted path → value, with the number of epochs at an earlier."""
        return {**self.first.changes, self.at.setting: self.at.number} if self.at else self.first.changes

    @property
    def config(self) -> JsonObject:
        """Return all of its settings, with the number of epochs at an earlier one."""
        return set_path(self.first.config, self.at.setting, self.at.number) if self.at else self.first.config

    @property
    def epoch_of(self) -> str:
        """Return the earlier epoch of another configuration that it was begun to judge; "" for those of the search."""
        return self.first.label.epoch_of

    @property
    def epoch(self) -> int | None:
        """Return after how many judged epochs its model is the one that is meant; None if there are none."""
        judged = len(self.first.epochs)
        if self.at is None or not judged:
            return judged or None
        return judged - sum(number > self.at.number for number in judged_epochs(self.first))

    @property
    def rank(self) -> tuple[float, float, int]:
        """Return (ASR, −CA, number) on validation, to sort by: best first; last those not measured, or not attacked."""
        if self.val is None:
            return np.inf, np.inf, self.number
        return self.val.asr.mean if self.val.asr else np.inf, -self.val.ca.mean, self.number

    @cached_property
    def candidate(self) -> Candidate | None:
        """Return what the choice looks at; None if the configuration or its victim has not been measured."""
        if self.val is None or self.poisoned_val is None:
            return None
        asr, ca = self.val.asr.mean if self.val.asr else None, self.val.ca.mean
        return Candidate(asr, ca, self.poisoned_val.ca.mean - ca, self.number, self.seen)

    @property
    def seen(self) -> Seen | None:
        """Return what a defender sees of it without the trigger, the mean over seeds; None unless of every seed."""
        return mean_seen(Seen.of(self._observed(trial)) for trial in self.measured)

    def _observed(self, trial: TrialRecord) -> Mapping[str, float]:
        return judged_epochs(trial)[self.at.number].observed if self.at else trial.observed

    def rates(self, split: Split) -> dict[int, Rates]:
        """Return seed → rates on a split, of the seeds that measured it."""
        found = {trial.seed: self._rates(trial, split) for trial in self.measured}
        return {seed: rates for seed, rates in found.items() if rates}

    def poisoned_rates(self, split: Split) -> dict[int, Rates]:
        """Return seed → rates of the poisoned model on a split, of the seeds that measured it."""
        found = {t.seed: t.poisoned_val if split == "val" else t.poisoned_test for t in self.measured}
        return {seed: rates for seed, rates in found.items() if rates}

    def _rates(self, trial: TrialRecord, split: Split) -> Rates | None:
        if self.at is None:
            return trial.val if split == "val" else trial.test
        return judged_epochs(trial)[self.at.number].val if split == "val" else None

    @property
    def seeds(self) -> int:
        """Return how many seeds were tried, in any state."""
        return len({trial.seed for trial in self.trials})

    @property
    def point(self) -> tuple[float, float] | None:
        """Return the means (ASR, CA) on validation; None if they were not measured, or no attack is known."""
        return self.val.point if self.val else None


def configurations(records: Iterable[TrialRecord]) -> tuple[Configuration, ...]:
    """Group records into configurations, in the order of their first trials."""
    groups: dict[str, list[TrialRecord]] = {}
    for record in sorted(records, key=lambda record: record.number):
        groups.setdefault(json.dumps(record.config, sort_keys=True), []).append(record)
    return tuple(_configuration(tuple(trials)) for trials in groups.values())


def judged_stage(trial: TrialRecord) -> StageRecord | None:
    """Return the stage that makes the defended model, if that was judged after its epochs; None if there is none."""
    return next((one for one in reversed(trial.stages) if any(epoch.val for epoch in one.epochs)), None)


def judged_epochs(trial: TrialRecord) -> dict[int, EpochRecord]:
    """Return the epochs of that stage after which the model was judged, by number."""
    stage = judged_stage(trial)
    return {epoch.epoch: epoch for epoch in (stage.epochs if stage else ()) if epoch.val}


def first_of_each_seed(trials: Iterable[TrialRecord]) -> tuple[TrialRecord, ...]:
    """Return one trial for each seed, by number: one met twice is the same measurement, not a second replicate."""
    by_number = sorted(trials, key=lambda trial: -trial.number)
    return tuple(sorted({trial.seed: trial for trial in by_number}.values(), key=lambda trial: trial.number))


def at_epochs(
    configuration: Configuration, trials: tuple[TrialRecord, ...], wanted: Iterable[AtEpoch]
) -> Iterator[Configuration]:
    """Yield a configuration at earlier epochs that all these trials, one for each seed, have judged."""
    judged = [judged_epochs(trial) for trial in trials]
    same = trials == configuration.measured  # of trials that were not stopped, so with the same victims
    poisoned_val = configuration.poisoned_val if same else outcome_of(trial.poisoned_val for trial in trials)
    poisoned_test = configuration.poisoned_test if same else outcome_of(trial.poisoned_test for trial in trials)
    for at in wanted:
        rates = [epochs[at.number].val for epochs in judged]
        yield Configuration(
            trials=configuration.trials,
            measured=trials,
            val=outcome_of(rates),
            test=None,
            poisoned_val=poisoned_val,
            poisoned_test=poisoned_test,
            at=at,
            provisional=any(found.provisional for found in rates if found),
        )


def _configuration(trials: tuple[TrialRecord, ...]) -> Configuration:
    measured = first_of_each_seed(trial for trial in trials if trial.state is State.DONE and trial.val)
    victims = measured or trials
    return Configuration(
        trials=trials,
        measured=measured,
        val=outcome_of(trial.val for trial in measured),
        test=outcome_of(trial.test for trial in measured),
        poisoned_val=outcome_of(trial.poisoned_val for trial in victims),
        poisoned_test=outcome_of(trial.poisoned_test for trial in victims),
        provisional=any(trial.val.provisional for trial in measured if trial.val),
    )


def outcome_of(found: Iterable[Rates | None]) -> Outcome | None:
    """Return the means of rates, those that were measured, one of each seed; None if none was."""
    rates = [one for one in found if one]
    if not rates:
        return None
    attacked = [Estimate(*rate) for r in rates if (rate := r.attacked)]
    return Outcome(
        asr=_estimate(attacked) if attacked else None,
        ca=_estimate([Estimate(r.ca, r.ca_low, r.ca_high) for r in rates]),
    )


def _estimate(seeds: list[Estimate]) -> Estimate:
    means = [seed.mean for seed in seeds]
    if len(set(means)) == 1:
        # Equal values (one seed, or one victim met under every seed) have no spread; the record holds Wilson's
        # interval, computed from the counts.
        return seeds[0]
    low, high = t_interval(means)
    return Estimate(fmean(means), max(0.0, low), min(1.0, high))
