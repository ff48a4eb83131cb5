"""How sure a front is: the chance of each member to be on it, the band it lies in, and what differs from the choice.

Chances and band are by resampling what was measured on validation: seeds with replacement, the same ones for all
candidates, and images within each model. These by Rubin's Bayesian bootstrap (1981), with half a hit and half a miss
added (Jeffreys): a rate of 0 in 480 images is not certainly 0. Every model is taken to err on images of its own. As all
see the same ones, differences are surer than that, and chances nearer to one half than they need be.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from analysis.points.configurations import Configuration, Split
from analysis.points.geometry import non_dominated, points_of
from ubt.common.statistics import difference_interval, t_test
from ubt.trials.rates import Rates

RESAMPLES = 2000
MOST = 400
"""Candidates that are resampled: of more, those nearest the front, front after front. The others have no chance."""
GRID = 101
Draws = NDArray[np.float64]


@dataclass(frozen=True)
class Band:
    """Between which CAs the front lies at each ASR, 95 times in 100: its attainment (Fonseca and Fleming, 1996)."""

    asr: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True)
class Doubt:
    """How sure a front is; empty where there is none."""

    chances: Mapping[str, float] = field(default_factory=dict)
    """Name of a candidate → probability of being on the front; 0 for those that are not listed."""
    band: Band | None = None
    alike: frozenset[str] = frozenset()
    """Members of the front that differ from the choice in neither rate, by 95 % intervals."""
    split: Split = "val"
    """On which they were compared: the test split if all were measured there, for the choice was not made on it."""


def doubt(candidates: Sequence[Configuration], front: Sequence[Configuration], chosen: Configuration | None) -> Doubt:
    """Work out how sure a front of candidates is; the same numbers each time."""
    near = nearest_the_front([one for one in candidates if one.point and not one.provisional])
    if not near or not front:
        return Doubt()
    asr, ca = resampled([one.rates("val") for one in near], np.random.default_rng(0))
    chances = on_front(asr, ca).mean(axis=0)
    others = [member for member in front if member is not chosen]
    split: Split = "test" if all(one.rates("test") for one in (*others, *filter(None, [chosen]))) else "val"
    alike = [other.name for other in others if chosen and not differ(chosen, other, split)]
    named = {one.name: float(chance) for one, chance in zip(near, chances, strict=True)}
    return Doubt(named, attainment(asr, ca), frozenset(alike), split)


def nearest_the_front(candidates: Sequence[Configuration], most: int = MOST) -> list[Configuration]:
    """Return at least `most` candidates, whole fronts: the front, the front of the others, and so on; all if fewer."""
    left, found = list(candidates), list[Configuration]()
    while left and len(found) < most:
        kept = non_dominated(points_of(one.point for one in left))
        found += [one for one, keep in zip(left, kept, strict=True) if keep]
        left = [one for one, keep in zip(left, kept, strict=True) if not keep]
    return found


def resampled(
    measured: Sequence[Mapping[int, Rates]], rng: np.random.Generator, resamples: int = RESAMPLES
) -> tuple[Draws, Draws]:
    """Return ASR and CA `[B, N]` of B resamples of N models, each given as seed → rates under a known attack."""
    seeds = sorted({seed for rates in measured for seed in rates})
    has = np.array([[seed in rates for seed in seeds] for rates in measured])  # [N, S]
    times = rng.multinomial(len(seeds), np.full(len(seeds), 1 / len(seeds)), size=resamples)  # [B, S]
    weights = times[:, None, :] * has
    # A model of few seeds may have been drawn none of them: it has all of them then.
    weights = np.where(weights.sum(axis=2, keepdims=True) > 0, weights, has)  # [B, N, S]
    weights = weights / weights.sum(axis=2, keepdims=True)

    def mean(rate: Callable[[Rates], tuple[float, int]]) -> Draws:
        known = np.array([[rate(rates[s]) if s in rates else (0.0, 1) for s in seeds] for rates in measured])
        hits, images = known[..., 0] * known[..., 1], known[..., 1]
        return np.asarray((weights * rng.beta(hits + 0.5, images - hits + 0.5, size=weights.shape)).sum(axis=2))

    return mean(lambda rates: (rates.asr or 0.0, rates.asr_images or 1)), mean(
        lambda rates: (rates.ca, rates.ca_images)
    )


def on_front(asr: Draws, ca: Draws) -> NDArray[np.bool_]:
    """Return `[B, N]` bool: of B draws of N points without ties, which ones no other one of the draw beats."""
    order = np.argsort(asr, axis=1)
    rising = np.take_along_axis(ca, order, axis=1)
    best = np.maximum.accumulate(rising, axis=1)
    kept = np.concatenate([np.ones((len(asr), 1), dtype=bool), rising[:, 1:] > best[:, :-1]], axis=1)
    found = np.zeros_like(kept)
    np.put_along_axis(found, order, kept, axis=1)
    return found


def attainment(asr: Draws, ca: Draws) -> Band:
    """Return between which CAs the fronts of B draws `[B, N]` lie, from the lowest ASR that 95 in 100 of them reach."""
    start, end = float(np.quantile(asr.min(axis=1), 0.975)), float(np.median(asr.max(axis=1)))
    grid = np.linspace(start, max(start, end), GRID)
    order = np.argsort(asr, axis=1)
    lowest = np.take_along_axis(asr, order, axis=1)
    best = np.maximum.accumulate(np.take_along_axis(ca, order, axis=1), axis=1)
    reached = np.array([np.searchsorted(row, grid, side="right") for row in lowest])  # [B, G]: points within the ASR
    attained = np.take_along_axis(best, np.maximum(reached - 1, 0), axis=1)
    attained[reached == 0] = 0.0
    low, high = np.quantile(attained, (0.025, 0.975), axis=0)
    return Band(tuple(grid.tolist()), tuple(low.tolist()), tuple(high.tolist()))


Pair = tuple[tuple[float, float, float], tuple[float, float, float]]
"""A rate of two models, each with the ends of its interval."""


def moved(configuration: Configuration, split: Split) -> tuple[bool, bool]:
    """Return whether the defense has clearly changed ASR, and CA: against the poisoned model of the same seed."""
    defended, poisoned = configuration.rates(split), configuration.poisoned_rates(split)
    attacked, clean = _pairs([(poisoned[seed], defended[seed]) for seed in sorted(defended.keys() & poisoned.keys())])
    return bool(attacked) and _clear(attacked), bool(clean) and _clear(clean)


def differ(one: Configuration, other: Configuration, split: Split) -> bool:
    """Return whether two models differ in a rate: whether the 95 % interval of the difference leaves out 0.

    Paired by seed, with Student's interval over seeds; under one seed, or where seeds show no spread, Newcombe's of
    two samples of images. Not known to differ if they have no seed in common.
    """
    rates, others = one.rates(split), other.rates(split)
    found = _pairs([(rates[seed], others[seed]) for seed in sorted(rates.keys() & others.keys())])
    return any(_clear(known) for known in found if known)


def _pairs(pairs: Sequence[tuple[Rates, Rates]]) -> tuple[list[Pair], list[Pair]]:
    """Return what pairs of seeds have measured of ASR, where an attack is known, and of CA."""
    attacked: list[Pair] = [(a, b) for left, right in pairs if (a := left.attacked) and (b := right.attacked)]
    clean: list[Pair] = [((a.ca, a.ca_low, a.ca_high), (b.ca, b.ca_low, b.ca_high)) for a, b in pairs]
    return attacked, clean


def _clear(pairs: Sequence[Pair]) -> bool:
    values = [round(one[0] - other[0], 12) for one, other in pairs]
    if len(set(values)) > 1:
        _, low, high, _ = t_test(values)
    else:
        intervals = [difference_interval(one, other) for one, other in pairs]
        low, high = fmean(interval[1] for interval in intervals), fmean(interval[2] for interval in intervals)
    return not low <= 0 <= high
