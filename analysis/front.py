"""The front, where attack success cannot be lowered without losing clean accuracy, and its hypervolume.

Points are `[N, 2]` float64, (ASR, CA) as fractions in [0, 1]; ASR is to be low, CA high.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from analysis.replicates import Configuration, Outcome

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
