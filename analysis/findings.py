"""What a run shows, worked out once: configurations with their means over seeds, the front, and the choice.

Seeds are replicates: trials that differ by seed alone are one configuration, measured several times.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from analysis.records import RunRecords
from ubt.common import choice
from ubt.common.choice import RULES, Candidate, RuleName, Seen, mean_seen
from ubt.common.statistics import bootstrap_interval
from ubt.trials.rates import Rates
from ubt.trials.record import State, TrialRecord

BOOTSTRAP_SEED = 0

Points = NDArray[np.float64]

WORST = (1.0, 0.0)
"""Reference point of the hypervolume: every attack succeeds, nothing is classified rightly."""


@dataclass(frozen=True)
class Estimate:
    """A rate in [0, 1] with its 95 % interval: Wilson's for one seed, bootstrapped over several.

    The latter covers the spread of the seeds, not the sampling of images, and is too narrow for few: of three seeds it
    is their range, which holds the mean about three times in four.
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
class Configuration:
    """One configuration with every trial that ran it, and the means over the seeds that are done."""

    trials: tuple[TrialRecord, ...]
    """All seeds in any state, by number; never empty."""
    measured: tuple[TrialRecord, ...]
    """The trials that are DONE and have validation rates: the first of each seed, by number."""
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
        """Return what differs from the study's base: dotted path → value."""
        return self.first.changes

    @property
    def rank(self) -> tuple[float, float, int]:
        """Return (ASR, −CA, number) on validation, to sort by: best first; last those not measured, or not attacked."""
        if self.val is None:
            return np.inf, np.inf, self.number
        return self.val.asr.mean if self.val.asr else np.inf, -self.val.ca.mean, self.number

    @property
    def candidate(self) -> Candidate | None:
        """Return what the choice looks at; None if the configuration or its victim has not been measured."""
        if self.val is None or self.poisoned_val is None:
            return None
        asr, ca = self.val.asr.mean if self.val.asr else None, self.val.ca.mean
        return Candidate(asr, ca, self.poisoned_val.ca.mean - ca, self.number, self.seen)

    @property
    def seen(self) -> Seen | None:
        """Return what a defender sees of it without the trigger, the mean over seeds; None unless of every seed."""
        return mean_seen(Seen.of(trial.observed) for trial in self.measured)

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
    attacked = [Estimate(*rate) for r in rates if (rate := r.attacked)]
    return Outcome(
        asr=_estimate(attacked) if attacked else None,
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


def non_dominated(points: Points) -> NDArray[np.bool_]:
    """Return `[N]` bool: True where no other of `points[N, 2]` (ASR, CA) is as good in both and better in one.

    Equal points do not dominate each other, so all of them stay. One sweep over the points by rising
    ASR (Kung, Luccio and Preparata, 1975): O(N log N).
    """
    kept = np.zeros(len(points), dtype=bool)
    best_ca, best = -np.inf, (np.nan, np.nan)
    for index in np.lexsort((-points[:, 1], points[:, 0])):
        asr, ca = float(points[index, 0]), float(points[index, 1])
        if ca > best_ca:
            best_ca, best = ca, (asr, ca)
        kept[index] = (asr, ca) == best
    return kept


def hypervolume(points: Points, reference: tuple[float, float] = WORST) -> float:
    """Return the area that `points[N, 2]` dominate, up to `reference` (Zitzler and Thiele, 1999).

    With the default reference it lies in [0, 1]: 1 for ASR 0 at CA 1. Points beyond it add nothing.
    """
    worst_asr, worst_ca = reference
    inside = points[(points[:, 0] < worst_asr) & (points[:, 1] > worst_ca)]
    front = np.unique(inside[non_dominated(inside)], axis=0)  # sorted by ASR; CA rises with it
    widths = np.diff(front[:, 0], append=worst_asr)
    return float(np.sum(widths * (front[:, 1] - worst_ca)))


def front(configurations: Iterable[Configuration]) -> tuple[Configuration, ...]:
    """Return the configurations that are not dominated on the validation split, by rising ASR.

    Those without a known attack have no place in it.
    """
    measured = [configuration for configuration in configurations if configuration.val and configuration.val.point]
    kept = non_dominated(validation_points(measured))
    members = [configuration for configuration, keep in zip(measured, kept, strict=True) if keep]
    return tuple(sorted(members, key=lambda member: member.rank))


def validation_points(configurations: Iterable[Configuration]) -> Points:
    """Return (ASR, CA) `[N, 2]` on validation of the N configurations that were measured under a known attack."""
    outcomes = [configuration.val for configuration in configurations if configuration.val]
    return np.array([point for outcome in outcomes if (point := outcome.point)], dtype=np.float64).reshape(-1, 2)


def choose(
    configurations: Iterable[Configuration], ca_floor: float, rule: RuleName = "lowest_asr"
) -> Configuration | None:
    """Return the configuration that `ubt.common.choice` chooses; None if none qualifies."""
    candidates = {candidate: c for c in configurations if (candidate := c.candidate)}
    chosen = choice.choose(candidates, ca_floor, rule)
    return None if chosen is None else candidates[chosen]


@dataclass(frozen=True)
class Findings:
    """A run with its configurations, their front, and the chosen one: what figures and reports are made from."""

    run: RunRecords
    configurations: tuple[Configuration, ...]
    front: tuple[Configuration, ...]
    """None in a comparison: the trials of different victims have no front in common, …"""
    chosen: Configuration | None
    """… and none of them can be chosen over the others. Of trials that leave out components of the base it can only be
    the base: what is left without one may do well here, and is no proposal of a defense."""

    @cached_property
    def choices(self) -> Mapping[RuleName, Configuration | None]:
        """Return what each rule chooses, the run's own first; of a comparison nothing.

        A rule that has nothing to look at is left out: there is no ASR without an attack, and nothing is seen of a
        defense that selects no pairs.
        """
        candidates = [c.candidate for c in self.configurations if not self.run.compared]
        able = [rule for rule in RULES if any(one and one.measured(rule) for one in candidates)]
        found = {rule: choose(proposed(self.configurations), self.run.ca_floor, rule) for rule in able}
        return dict(sorted(found.items(), key=lambda item: item[0] != self.run.rule))

    @cached_property
    def measured(self) -> tuple[Configuration, ...]:
        """Return the configurations with at least one trial done."""
        return tuple(configuration for configuration in self.configurations if configuration.val)

    @cached_property
    def attacked(self) -> bool:
        """Return whether the attack on any measured configuration is known, and so its attack success rate."""
        return any(configuration.val and configuration.val.asr for configuration in self.measured)

    @cached_property
    def base(self) -> Configuration | None:
        """Return the study's base: the configuration that changes nothing."""
        return next((configuration for configuration in self.configurations if not configuration.changes), None)

    @cached_property
    def roles(self) -> dict[str, str]:
        """Return trial → `chosen` or `base`, for the trials of these two configurations."""
        roles = (("base", self.base), ("chosen", self.chosen))
        return {trial.trial: role for role, of in roles if of for trial in of.trials}

    @cached_property
    def victim(self) -> Configuration | None:
        """Return the configuration whose poisoned model the results are read against.

        That of the chosen one; without a choice the base's, or any that has been measured.
        """
        candidates = (self.chosen, self.base, *self.configurations)
        return next((c for c in candidates if c is not None and c.poisoned_val), None)

    @cached_property
    def victims(self) -> tuple[Configuration, ...]:
        """Return one configuration for each distinct victim, of those whose poisoned model was measured."""
        distinct: dict[str, Configuration] = {}
        for configuration in (self.victim, *self.configurations):
            if configuration is not None and configuration.poisoned_val:
                victim = json.dumps(configuration.first.config.get("victim"), sort_keys=True)
                distinct.setdefault(victim, configuration)
        return tuple(distinct.values())


def find(run: RunRecords) -> Findings:
    """Work out what a run shows."""
    found = configurations(run.records)
    if run.compared:
        return Findings(run, found, (), None)
    return Findings(run, found, front(found), choose(proposed(found), run.ca_floor, run.rule))


def proposed(configurations: Iterable[Configuration]) -> tuple[Configuration, ...]:
    """Return the configurations that may be chosen: those that leave no component of the base out."""
    return tuple(configuration for configuration in configurations if not configuration.first.label.leaves_out)
