"""What a run shows, worked out once: its front, that front's hypervolume, and the choice."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.configurations import Configuration, Outcome, configurations
from analysis.run import Run
from ubt.common import choice

Points = NDArray[np.float64]

WORST = (1.0, 0.0)
"""Reference point of the hypervolume: every attack succeeds, nothing is classified rightly."""


def non_dominated(points: Points) -> NDArray[np.bool_]:
    """Return `[N]` bool: True where no other point is at least as good in both and better in one.

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
    """Return the configurations that are not dominated on the validation split, by rising ASR."""
    measured = [configuration for configuration in configurations if configuration.val]
    kept = non_dominated(validation_points(measured))
    members = [configuration for configuration, keep in zip(measured, kept, strict=True) if keep]
    return tuple(sorted(members, key=lambda member: member.rank))


def validation_points(configurations: Iterable[Configuration]) -> Points:
    """Return (ASR, CA) `[N, 2]` on the validation split of the N configurations that have been measured."""
    outcomes = [configuration.val for configuration in configurations if configuration.val]
    return np.array([_point(outcome) for outcome in outcomes], dtype=np.float64).reshape(-1, 2)


def _point(outcome: Outcome) -> tuple[float, float]:
    return outcome.asr.mean, outcome.ca.mean


def choose(configurations: Iterable[Configuration], ca_floor: float) -> Configuration | None:
    """Return the configuration that `ubt.common.choice` chooses; None if none qualifies."""
    candidates = {candidate: c for c in configurations if (candidate := c.candidate)}
    chosen = choice.choose(candidates, ca_floor)
    return None if chosen is None else candidates[chosen]


@dataclass(frozen=True)
class Findings:
    """A run with its configurations, their front, and the chosen one."""

    run: Run
    configurations: tuple[Configuration, ...]
    front: tuple[Configuration, ...]
    """None in a comparison: the trials of different victims have no front in common, …"""
    chosen: Configuration | None
    """… and none of them can be chosen over the others."""

    @property
    def measured(self) -> tuple[Configuration, ...]:
        """Return the configurations with at least one trial done."""
        return tuple(configuration for configuration in self.configurations if configuration.val)

    @property
    def base(self) -> Configuration | None:
        """Return the study's base: the configuration that changes nothing."""
        return next((configuration for configuration in self.configurations if not configuration.changes), None)

    @property
    def victim(self) -> Configuration | None:
        """Return the configuration whose poisoned model the results are read against.

        That of the chosen one; without a choice the base's, or any that has been measured.
        """
        candidates = (self.chosen, self.base, *self.configurations)
        return next((c for c in candidates if c is not None and c.poisoned_val), None)

    @property
    def victims(self) -> tuple[Configuration, ...]:
        """Return one configuration for each distinct victim, of those whose poisoned model was measured."""
        distinct: dict[str, Configuration] = {}
        for configuration in (self.victim, *self.configurations):
            if configuration is not None and configuration.poisoned_val:
                victim = json.dumps(configuration.first.config.get("victim"), sort_keys=True)
                distinct.setdefault(victim, configuration)
        return tuple(distinct.values())


def find(run: Run) -> Findings:
    """Work out what `run` shows."""
    found = configurations(run.records)
    if run.compared:
        return Findings(run, found, (), None)
    return Findings(run, found, front(found), choose(found, run.ca_floor))
