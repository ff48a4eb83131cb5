"""What a run shows, worked out once: its configurations, what may be chosen of them, the front, and the choice."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from analysis.points.candidates import candidates
from analysis.points.configurations import Configuration, configurations
from analysis.points.doubt import Doubt, doubt
from analysis.points.geometry import Points, non_dominated, points_of
from analysis.records import RunRecords
from ubt.common import choice
from ubt.common.choice import RULES, RuleName


def front(candidates: Iterable[Configuration], provisional: bool = False) -> tuple[Configuration, ...]:
    """Return the candidates that are not dominated on the validation split, by rising ASR.

    Those without a known attack have no place in it, nor have those that were judged on a part of the split, unless
    `provisional` ones are asked for. Of equal points of one configuration its end is taken, or else the first epoch.
    """
    known = [one for one in candidates if one.point and (provisional or not one.provisional)]
    kept = non_dominated(validation_points(known))
    members = sorted((one for one, keep in zip(known, kept, strict=True) if keep), key=lambda member: member.rank)
    distinct: dict[tuple[str, tuple[float, float] | None], Configuration] = {}
    for member in sorted(members, key=lambda member: member.at.number if member.at else 0):
        distinct.setdefault((member.first.trial, member.point), member)
    return tuple(member for member in members if distinct[member.first.trial, member.point] is member)


def validation_points(configurations: Iterable[Configuration]) -> Points:
    """Return (ASR, CA) `[N, 2]` on validation of the N configurations that were measured under a known attack."""
    return points_of(configuration.point for configuration in configurations)


def choose(
    configurations: Iterable[Configuration],
    ca_floor: float,
    rule: RuleName = "lowest_asr",
    provisional: bool = False,
) -> Configuration | None:
    """Return the configuration that `ubt.common.choice` chooses; None if none qualifies.

    Not one that was judged on a part of the split, unless `provisional` ones are asked for. Of equals of one
    configuration its end wins, then the first epoch.
    """
    allowed = [one for one in configurations if provisional or not one.provisional]
    ends_first = sorted(allowed, key=lambda one: (one.number, one.at.number if one.at else 0))
    able = [(candidate, one) for one in ends_first if (candidate := one.candidate)]
    chosen = choice.choose([candidate for candidate, _ in able], ca_floor, rule)
    return next((one for candidate, one in able if candidate is chosen), None)


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
    candidates: tuple[Configuration, ...] = ()
    """What front and choice are of: the configurations, and, where every epoch counts, each at its earlier epochs."""
    titles: dict[int, tuple[Configuration, str]] = field(default_factory=dict, compare=False, repr=False)
    """What figures say of a configuration that is pointed at, worked out once for all of them: by its `id`, beside the
    configuration itself, so that no other one gets that."""

    @cached_property
    def choices(self) -> Mapping[RuleName, Configuration | None]:
        """Return what each rule chooses, the run's own first; of a comparison nothing.

        A rule that has nothing to look at is left out: there is no ASR without an attack, and nothing is seen of a
        defense that selects no pairs.
        """
        seen = [one.candidate for one in self.candidates]
        able = [rule for rule in RULES if any(one and one.measured(rule) for one in seen)]
        found = {rule: choose(proposed(self.candidates), self.run.ca_floor, rule) for rule in able}
        return dict(sorted(found.items(), key=lambda item: item[0] != self.run.rule))

    @cached_property
    def measured(self) -> tuple[Configuration, ...]:
        """Return the configurations with at least one trial done."""
        return tuple(configuration for configuration in self.configurations if configuration.val)

    @cached_property
    def doubt(self) -> Doubt:
        """Return how sure the front is."""
        return doubt(self.candidates, self.front, self.chosen)

    @cached_property
    def searched(self) -> tuple[Configuration, ...]:
        """Return those of them that the search laid out: not those that were begun to judge an earlier epoch."""
        return tuple(configuration for configuration in self.measured if not configuration.epoch_of)

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
        """Return trial → `chosen` or `base`, for the trials of these two configurations.

        Of an ablation nothing but the base can be chosen, so that it is its base and no choice.
        """
        roles = (("base", self.base), ("chosen", None if self.run.leaves_out else self.chosen))
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
    able = candidates(found) if run.every_epoch else found
    return Findings(run, found, front(able), choose(proposed(able), run.ca_floor, run.rule), able)


def proposed(configurations: Iterable[Configuration]) -> tuple[Configuration, ...]:
    """Return the configurations that may be chosen: those that leave no component of the base out."""
    return tuple(configuration for configuration in configurations if not configuration.first.label.leaves_out)


def to_judge(findings: Findings) -> tuple[Configuration, ...]:
    """Return what is on the front or chosen, by either rule, at an earlier epoch: trials that end there judge it.

    Also where it may be there: by rates of a part of the validation split.
    """
    able, run = findings.candidates, findings.run
    chosen = [choose(proposed(able), run.ca_floor, rule, provisional=True) for rule in findings.choices]
    wanted = [one for one in (*front(able, provisional=True), *chosen) if one and one.at]
    return tuple({one.name: one for one in sorted(wanted, key=lambda one: (one.number, one.name))}.values())
