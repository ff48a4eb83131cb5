"""The share of a rate's variance that each knob explains alone: first-order indices of an additive model.

A rate is taken for a sum of functions, one of each knob, fitted by least squares to all trials at once (functional
ANOVA by regression: Sobol', 2001; Sudret, 2008). So knobs that a search moved together are told apart as far as its
trials can, and no forest has to be grown, which took most of the time of a report on twenty knobs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.polynomial.legendre import legvander
from numpy.typing import NDArray

from analysis.effects.ped_anova import spans_decades

MOST_TERMS = 5
"""A number's function is a polynomial of at most this degree; on fewer distinct values, of what they determine."""
TRIALS_A_TERM = 3
"""Of fewer trials for each term of it, the degree is lower: so many at least are there for each."""

Terms = NDArray[np.float64]


def variance_shares(columns: Mapping[str, Sequence[float | str]], rate: NDArray[np.float64]) -> dict[str, float]:
    """Return for each knob the share of the variance of `rate[N]` that is its own, in [0, 1].

    Each distinct value of a knob counts once, however often a search tried it. What chance alone would add to a share
    is taken off. The rest of 1 is what knobs do together, and chance.
    """
    if np.ptp(rate) == 0:
        return dict.fromkeys(columns, 0.0)
    degree = int(np.clip(len(rate) // (TRIALS_A_TERM * len(columns)), 1, MOST_TERMS))
    blocks = {path: _terms(values, degree) for path, values in columns.items()}
    matrix = np.column_stack([np.ones(len(rate)), *(terms for terms, _ in blocks.values())])
    weights, _, rank, _ = np.linalg.lstsq(matrix, rate, rcond=1e-10)
    rest = rate - matrix @ weights
    noise = float(rest @ rest) / max(1, len(rate) - int(rank))
    doubt = np.linalg.pinv(matrix.T @ matrix, rcond=1e-10, hermitian=True)
    own: dict[str, float] = {}
    begin = 1
    for path, (terms, distinct) in blocks.items():
        part = slice(begin, begin + terms.shape[1])
        curve = distinct - distinct.mean(axis=0)
        by_chance = noise * float(np.einsum("ij,jk,ik->", curve, doubt[part, part], curve)) / len(curve)
        own[path] = max(0.0, float(np.var(curve @ weights[part])) - by_chance)
        begin = part.stop
    total = sum(own.values()) + noise
    return {path: share / total for path, share in own.items()}


def _terms(values: Sequence[float | str], degree: int) -> tuple[Terms, Terms]:
    """Return `[N, T]`, a knob's terms for each trial, and `[V, T]`, those of its distinct values."""
    numbers = [value for value in values if not isinstance(value, str)]
    if len(numbers) < len(values):
        words = {word: at for at, word in enumerate(dict.fromkeys(values))}
        distinct = np.eye(len(words))
        return distinct[[words[value] for value in values]], distinct
    scaled = np.log(numbers) if spans_decades(numbers) else np.asarray(numbers, dtype=float)
    places, which = np.unique(scaled, return_inverse=True)
    on_axis = 2 * (places - places[0]) / (places[-1] - places[0]) - 1
    distinct = legvander(on_axis, min(degree, len(places) - 1))[:, 1:]
    return distinct[which], distinct
