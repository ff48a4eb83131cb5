"""The plane of attack success rate and clean accuracy: which points no other one beats, and what area they dominate."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]

WORST = (1.0, 0.0)
"""Reference point of the hypervolume: every attack succeeds, nothing is classified rightly."""


def points_of(places: Iterable[tuple[float, float] | None]) -> Points:
    """Return (ASR, CA) `[N, 2]` of the N places that are known."""
    return np.array([place for place in places if place], dtype=np.float64).reshape(-1, 2)


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
