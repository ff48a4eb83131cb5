"""Statistics of rates: intervals and the area under the ROC curve, one definition for every package."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from statistics import fmean, stdev
from typing import NamedTuple

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


def t_interval(values: Sequence[float]) -> tuple[float, float]:
    """Return Student's 95 % interval of the mean of `values` (1908), the quantile by scipy.

    Of a normal distribution it holds the mean 95 times in 100 however few the values are.

    Raises:
        ValueError: if there are fewer than two values.

    Example:
        >>> low, high = t_interval([0.1, 0.2, 0.6])
        >>> f"{low:.2f} {high:.2f}"
        '-0.36 0.96'
    """
    if len(values) < 2:
        raise ValueError("a t interval needs two values")
    mean = fmean(values)
    half = _t_quantile(len(values) - 1) * stdev(values, mean) / math.sqrt(len(values))
    return mean - half, mean + half


@cache
def _t_quantile(freedom: int) -> float:
    from scipy.special import stdtrit  # noqa: PLC0415 — slow to import, and planning needs this module's rest

    return float(stdtrit(freedom, 0.975))


class TTest(NamedTuple):
    """A mean with Student's 95 % interval, and how likely one as far from 0 is by chance alone."""

    mean: float
    low: float
    high: float
    p: float


def t_test(values: Sequence[float]) -> TTest:
    """Return the mean of `values`, its 95 % t interval, and the two-sided p-value of 0 (Student, 1908), by scipy.

    It holds the mean of a normal distribution 95 times in 100 however few the values are. Of differences of pairs it
    is the paired t-test.

    Raises:
        ValueError: if there are fewer than two values, or all are equal: then nothing is known of their spread.

    Example:
        >>> mean, low, high, p = t_test([0.1, 0.2, 0.6])
        >>> f"{mean:.2f} {low:.2f} {high:.2f} {p:.2f}"
        '0.30 -0.36 0.96 0.19'
    """
    if len(set(values)) < 2:
        raise ValueError("a t interval needs two values that differ")
    from scipy.stats import ttest_1samp  # noqa: PLC0415 — slow to import, and planning needs this module's rest

    found = ttest_1samp(np.asarray(values, dtype=float), 0.0)
    low, high = found.confidence_interval(0.95)
    return TTest(float(np.mean(values)), float(low), float(high), float(found.pvalue))


def difference_interval(
    one: tuple[float, float, float], other: tuple[float, float, float]
) -> tuple[float, float, float]:
    """Return (difference, low, high) of two rates, each given with the ends of its Wilson interval.

    Newcombe's hybrid interval (1998, method 10), for two independent samples: of the same images, as two models see
    them, it is rather too wide.

    Example:
        >>> found = difference_interval((56 / 70, *wilson_interval(56, 70)), (48 / 80, *wilson_interval(48, 80)))
        >>> "{:.4f} {:.4f} {:.4f}".format(*found)
        '0.2000 0.0524 0.3339'
    """
    difference = one[0] - other[0]
    below = math.hypot(one[0] - one[1], other[2] - other[0])
    above = math.hypot(one[2] - one[0], other[0] - other[1])
    return difference, difference - below, difference + above


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Return p-values corrected for their number (Holm, 1979), in the same order.

    Who calls significant what is below 0.05 is wrong about any of them in at most 5 of 100 such families.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        (0.03, 0.06, 0.06)
    """
    corrected, least = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = least
    return tuple(corrected)
