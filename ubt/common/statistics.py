"""Statistics of rates; one definition for all packages."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def wilson_interval(successes: int, trials: int, z: float = 1.959964) -> tuple[float, float]:
    """Return Wilson's score interval for a rate (Wilson, 1927), 95 % by default.

    Raises:
        ValueError: if `trials` is not positive or `successes` lies outside 0…`trials`.
    """
    if trials <= 0 or not 0 <= successes <= trials:
        raise ValueError(f"{successes} of {trials} is not a rate")
    rate, spread = successes / trials, z * z / trials
    centre = (rate + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(rate * (1 - rate) / trials + spread / (4 * trials))
    return max(0.0, centre - half), min(1.0, centre + half)


def auroc(scores: NDArray[np.floating], positive: NDArray[np.bool_]) -> float:
    """Return P(score of a positive > score of a negative), ties counted half (Mann–Whitney U).

    `scores[N]`, `positive[N]` bool. NaN if one of the two groups is empty.
    """
    from scipy.stats import rankdata  # noqa: PLC0415 — slow to import, and planning needs this module's rest

    positives = int(positive.sum())
    negatives = len(positive) - positives
    if positives == 0 or negatives == 0:
        return math.nan
    ranks = rankdata(scores)
    return float((ranks[positive].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def keeps_accuracy(ca_lost: float, ca_floor: float) -> bool:
    """Return whether a loss of clean accuracy is within the floor, or on it: 0.82 − 0.80 is not 0.02 in binary."""
    return ca_lost <= ca_floor + 1e-9


def bootstrap_interval(
    values: Sequence[float], rng: np.random.Generator, resamples: int = 10_000
) -> tuple[float, float]:
    """Return the 95 % percentile bootstrap interval of the mean of `values` (Efron, 1979).

    Of few values it is too narrow: of three it is their range, which holds the mean of a normal distribution three
    times in four.

    Raises:
        ValueError: if there are no values.
    """
    if not values:
        raise ValueError("no values to resample")
    sample = np.asarray(values, dtype=float)
    means = rng.choice(sample, size=(resamples, len(sample))).mean(axis=1)
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)
