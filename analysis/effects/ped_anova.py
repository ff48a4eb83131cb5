"""PED-ANOVA: what sets the best trials apart from all that were run, knob by knob (Watanabe et al., IJCAI 2023).

The densities and the divergence are those of Optuna's `PedAnovaImportanceEvaluator`, against which the tests hold them.
Optuna's own comes with scikit-learn and SciPy's statistics, whose import took a fifth of what a report takes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.points.geometry import Points, non_dominated

STEPS = 50
"""At most so many cells on the axis of a number."""
_LEAST_WIDTH = 0.5 / 1.64
"""Least width of a kernel, in cells: 90 % of it lie in its own cell then."""
_NEVER = 1e-12

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Axis:
    """The values of one knob over N trials, as cells of a grid."""

    cells: NDArray[np.int64]
    """`[N]`: the cell of each trial, from 0."""
    number: int
    """How many cells there are."""
    ordered: bool
    """False of words: no cell is nearer to one than to another."""


def axis_of(values: Sequence[float | str]) -> Axis:
    """Return the axis of a knob: equal steps of numbers, or of their logarithms, from the least to the largest."""
    numbers = [value for value in values if not isinstance(value, str)]
    if len(numbers) < len(values):
        words = {word: at for at, word in enumerate(dict.fromkeys(values))}
        return Axis(np.array([words[value] for value in values]), len(words), ordered=False)
    log, span = spans_decades(numbers), max(numbers) - min(numbers)
    steps = STEPS
    if all(isinstance(number, int) for number in numbers):
        whole = math.ceil(math.log2(span + 1)) + 1 if log else int(span) + 1
        steps = min(whole, STEPS)
    scaled = np.log(numbers) if log else np.asarray(numbers, dtype=float)
    places = (scaled - scaled.min()) / (scaled.max() - scaled.min()) * (steps - 1)
    return Axis(np.clip(np.ceil(places - 0.5), 0, steps - 1).astype(np.int64), steps, ordered=True)


def spans_decades(numbers: Sequence[float]) -> bool:
    """Return whether numbers belong on a logarithmic axis: all above 0, the largest more than ten times the least."""
    return min(numbers) > 0 and max(numbers) / min(numbers) > 10


def shares_among_best(axes: Mapping[str, Axis], best: Mask) -> dict[str, float]:
    """Return the share of each knob in what sets the best trials, `best[N]`, apart from all: together 1."""
    found = {path: _divergence(axis, best) for path, axis in axes.items()}
    total = sum(found.values())
    return {path: divergence / total if total > 0 else 0.0 for path, divergence in found.items()}


def lowest(values: NDArray[np.float64], number: int) -> Mask:
    """Return `[N]`: True of the `number` lowest values, and of those equal to the last of them."""
    found: Mask = values <= np.partition(values, number - 1)[number - 1]
    return found


def nearest_front(points: Points, number: int) -> Mask:
    """Return `[N]`: True of the `number` points of `points[N, 2]` (ASR, CA) on and near the front.

    Front after front is taken off (Goldberg, 1989). Of the last, which may have too many, those come first without
    which it would lose most area.
    """
    kept = np.zeros(len(points), dtype=bool)
    while (missing := number - int(kept.sum())) > 0:
        rest = np.flatnonzero(~kept)
        front = rest[non_dominated(points[rest])]
        largest = np.argsort(-_areas(points[front]), kind="stable")
        kept[front[largest[:missing]]] = True
    return kept


def _areas(front: Points) -> NDArray[np.float64]:
    """Return `[N]`: the area that each point of a front adds; that of both ends has no limit, of equal ones is 0."""
    order = np.lexsort((front[:, 1], front[:, 0]))
    asr, ca = front[order].T
    found = np.empty(len(front))
    found[order] = np.diff(asr, append=np.inf) * np.diff(ca, prepend=-np.inf)
    return np.nan_to_num(found, nan=0.0, posinf=np.inf)


def _divergence(axis: Axis, best: Mask) -> float:
    """Return Pearson's divergence of the best trials' density from that of all."""
    every, top = _density(axis, axis.cells) + _NEVER, _density(axis, axis.cells[best]) + _NEVER
    return float(every @ (top / every - 1) ** 2)


def _density(axis: Axis, cells: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return `[number]`: the density over an axis, by a kernel for each cell with trials, and a prior."""
    counts = np.bincount(cells, minlength=axis.number)
    met = np.flatnonzero(counts)
    weights = np.append(counts[met], 1.0)
    kernels = _normal_kernels(axis.number, met, counts[met]) if axis.ordered else _word_kernels(axis.number, met)
    mixed: NDArray[np.float64] = weights / weights.sum() @ kernels
    return mixed


def _word_kernels(number: int, met: NDArray[np.int64]) -> NDArray[np.float64]:
    kernels = np.full((len(met) + 1, number), 1.0 / (len(met) + 1))
    kernels[np.arange(len(met)), met] += 1
    normed: NDArray[np.float64] = kernels / kernels.sum(axis=1, keepdims=True)
    return normed


def _normal_kernels(number: int, met: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return normal densities within the axis, of a width by Scott's rule (1992), and the wide one of the prior."""
    reached, trials = np.cumsum(counts), int(counts.sum())
    mean = met @ counts / trials
    deviation = math.sqrt((met - mean) ** 2 @ counts / max(1, trials - 1))
    lower = np.searchsorted(reached, trials // 4, side="left")
    upper = min(len(met) - 1, int(np.searchsorted(reached, trials * 3 // 4, side="right")))
    width = 1.059 * min(float(met[upper] - met[lower]) / 1.34, deviation) * trials**-0.2
    own = _within(number, met.astype(float), max(width, _LEAST_WIDTH))
    return np.vstack([own, _within(number, np.array([(number - 1) / 2]), float(number))])


def _within(number: int, middles: NDArray[np.float64], width: float) -> NDArray[np.float64]:
    """Return `[K, number]`: the mass of normal densities around `middles[K]` in each cell, within the axis 1."""
    borders = (np.arange(number + 1) - 0.5 - middles[:, None]) / width
    distinct, places = np.unique(borders.round(12), return_inverse=True)  # few: steps between cells are equal
    below = np.array([math.erf(border / math.sqrt(2)) for border in distinct])[places].reshape(borders.shape)
    masses = np.diff(below, axis=1)
    normed: NDArray[np.float64] = masses / masses.sum(axis=1, keepdims=True)
    return normed
