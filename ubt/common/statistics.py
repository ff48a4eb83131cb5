"""Statistics of rates: intervals and the area under the ROC curve, one definition for every package."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """Return Wilson's 95 % score interval of a rate (Wilson, 1927), by scipy.

    About 0.04 ms a call, and 0.6 s to import scipy at the first.

    Raises:
        ValueError: if `trials` is not positive or `successes` lies outside 0…`trials`.

    Example:
        >>> low, high = wilson_interval(36, 1000)
        >>> f"{low:.3f} {high:.3f}"
        '0.026 0.049'
    """
    from scipy.stats import binomtest  # noqa: PLC0415 — slow to import, and planning needs this module's rest

    if trials <= 0 or not 0 <= successes <= trials:
        raise ValueError(f"{successes} of {trials} is not a rate")
    # The interval does not depend on the hypothesis; tested against the rate itself, p = 1 needs no search (0.4 ms).
    interval = binomtest(successes, trials, successes / trials).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def auroc(scores: NDArray[np.floating], positive: NDArray[np.bool_]) -> float:
    """Return P(score of a positive > score of a negative), ties counted half, by scikit-learn.

    `scores[N]` float, infinities allowed; `positive[N]` bool. NaN if one of the two groups is empty or a score is NaN.

    Example:
        >>> auroc(np.array([0.9, 0.4, 0.4, 0.1]), np.array([True, True, False, False]))
        0.875
    """
    if positive.all() or not positive.any() or np.isnan(scores).any():
        return math.nan
    from sklearn.metrics import roc_auc_score  # noqa: PLC0415 — slow to import, and planning needs this module's rest

    # scikit-learn refuses infinities; the largest finite numbers rank the same.
    return float(roc_auc_score(positive, np.nan_to_num(scores)))


def bootstrap_interval(
    values: Sequence[float], rng: np.random.Generator, resamples: int = 10_000
) -> tuple[float, float]:
    """Return the 95 % percentile bootstrap interval of the mean of `values` (Efron, 1979), by scipy.

    Of few values it is too narrow: of three it is their range, which holds the mean of a normal distribution three
    times in four. A single value is its own interval.

    Raises:
        ValueError: if there are no values.

    Example:
        >>> low, high = bootstrap_interval([0.1, 0.2, 0.6], np.random.default_rng(0))
        >>> f"{low:.3f} {high:.3f}"
        '0.100 0.600'
    """
    if not values:
        raise ValueError("no values to resample")
    if len(values) == 1:
        return values[0], values[0]
    from scipy.stats import bootstrap  # noqa: PLC0415 — slow to import, and planning needs this module's rest

    sample = (np.asarray(values, dtype=float),)
    found = bootstrap(sample, np.mean, n_resamples=resamples, method="percentile", rng=rng).confidence_interval
    return float(found.low), float(found.high)
