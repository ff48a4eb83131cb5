"""Which configuration to ask for next: the one whose epochs are expected to add most to the front for what it costs.

Expected are draws from the belief of `CurveModel`; of each draw counts the epoch that would add the most hypervolume.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import RandomSampler
from optuna.trial import FrozenTrial, TrialState

from sweeps.search.curves.model import Array, CurveModel, fitted
from sweeps.search.curves.prices import Prices
from sweeps.search.optuna_points import Point, Points
from sweeps.search.proposals import Outcome
from ubt.common.hashing import derive, numpy_generator

if TYPE_CHECKING:
    from optuna import Study

EPOCHS = "epochs"
"""Attribute of a trial: (epoch, ASR, CA) of each epoch that was judged."""
_CANDIDATES = 1000
"""Configurations that are weighed, of more so many at random."""
_DRAWS = 24
_SPREAD = 12
"""Of so many candidates one is taken, before anything can be learnt."""
_LEAST_CHANCE = 0.01
"""That a configuration does not fail."""
_RATIO = 3.0
"""Numbers whose largest is more than so many times the smallest are compared by their logarithms."""


def attributes_of(outcome: Outcome) -> dict[str, object]:
    """Return what has to be kept of an outcome beside its values."""
    return {EPOCHS: [list(one) for one in outcome.epochs]} if outcome.epochs else {}


@dataclass(frozen=True)
class _Known:
    """What a study has proposed, and what came of it."""

    measured: list[FrozenTrial]
    failed: list[FrozenTrial]
    open: list[FrozenTrial]
    """Those whose outcome is yet to come."""

    @classmethod
    def of(cls, study: Study) -> _Known:
        trials = study.get_trials(deepcopy=False)
        return cls(
            [one for one in trials if one.state is TrialState.COMPLETE],
            [one for one in trials if one.state is TrialState.PRUNED],
            [one for one in trials if one.state is TrialState.RUNNING and one.params],
        )


class CurveSampler:
    """Draws one configuration of a search, from what its Optuna study knows."""

    def __init__(self, points: Points, prices: Prices | None, startup: int, seed: int) -> None:
        self._points = points
        self._prices = prices
        self._startup = startup
        self._seed = seed

    def draw(self, study: Study, known: Collection[str]) -> Point | None:
        """Return a new configuration; None if none was found."""
        candidates = self._candidates(study, known)
        if not candidates:
            return None
        told = _Known.of(study)
        asked: list[Point] = [dict(one.params) for one in (*told.measured, *told.failed, *told.open)]
        rows = features_of([*candidates, *asked], self._points.distributions)
        features, apart = rows[: len(candidates)], rows[len(candidates) :]
        if len(asked) < self._startup or len(told.measured) < 2:
            return candidates[self._farthest(features, apart)]
        gains = self._gains(told, features, apart)
        return candidates[int(np.argmax(gains / self._costs(candidates, asked)))]

    def _candidates(self, study: Study, known: Collection[str]) -> list[Point]:
        rng = numpy_generator(self._seed, "candidates")
        if self._points.laid_out is None:
            return list(self._drawn(study, known))
        left = [point for name, point in self._points.laid_out.items() if name not in known]
        if len(left) <= _CANDIDATES:
            return left
        return [left[at] for at in rng.choice(len(left), _CANDIDATES, replace=False)]

    def _drawn(self, study: Study, known: Collection[str]) -> Iterable[Point]:
        """Yield points of a space that is too large to be laid out."""
        names, sampler = set(known), RandomSampler(derive(self._seed, "candidates") % 2**32)
        trial = FrozenTrial(0, TrialState.RUNNING, None, None, None, {}, {}, {}, {}, {}, 0, values=None)
        for _ in range(_CANDIDATES // 2):
            drawn = {
                path: sampler.sample_independent(study, trial, path, one)
                for path, one in self._points.distributions.items()
            }
            point = {**drawn, **self._points.settled}
            if (name := self._points.name(point)) not in names:
                names.add(name)
                yield point

    def _farthest(self, features: Array, asked: Array) -> int:
        """Return, of some candidates, the one farthest from all that was asked for; of all it would be a corner."""
        drawn = numpy_generator(self._seed, "order").permutation(len(features))[:_SPREAD]
        if not len(asked):
            return int(drawn[0])
        nearest = ((features[drawn, None] - asked[None]) ** 2).sum(axis=2).min(axis=1)
        return int(drawn[int(np.argmax(nearest))])

    def _gains(self, told: _Known, features: Array, asked: Array) -> Array:
        """Return how much hypervolume each candidate is expected to add."""
        measured, failed = len(told.measured), len(told.failed)
        curves = [_curve_of(one) for one in told.measured]
        horizon = max(1, *(curve[-1][0] for curve in curves))
        curves = [[(epoch or horizon, asr, ca) for epoch, asr, ca in curve] for curve in curves]
        epochs = range(1, horizon + 1) if any(len(curve) > 1 for curve in curves) else [horizon]
        model, seen = CurveModel(asked[:measured], curves, horizon), [one[1:] for curve in curves for one in curve]
        waiting = asked[measured + failed :]
        if len(waiting):  # as if they came to what is expected of them
            mean = model.predict(waiting, epochs).mean
            seen += [(float(asr), float(ca)) for asr, ca in mean.reshape(2, -1).T]
            expected = [
                [(e, float(a), float(c)) for e, a, c in zip(epochs, *one, strict=True)]
                for one in zip(*mean, strict=True)
            ]
            model = CurveModel(np.vstack([asked[:measured], waiting]), [*curves, *expected], horizon)
        belief = model.predict(features, list(epochs))
        gains = np.zeros(len(features))
        front = _front(np.array(seen))
        for z in numpy_generator(self._seed, "draws").standard_normal((_DRAWS, 2)):
            asr, ca = np.clip(belief.mean + belief.deviation * z[:, None, None], 0.0, 1.0)
            gains += added(front, asr, ca).max(axis=1) / _DRAWS
        return (gains + 1e-12) * _chance(features, asked[:measured], asked[measured : measured + failed])

    def _costs(self, candidates: Sequence[Point], asked: Sequence[Point]) -> Array:
        """Return what each candidate costs beside what was asked for."""
        if self._prices is None:
            return np.ones(len(candidates))
        of_candidates, of_others = (list(map(self._points.changes, points)) for points in (candidates, asked))
        return np.array(self._prices.of_all(of_candidates, of_others), dtype=np.float64)


def features_of(points: Sequence[Point], distributions: Mapping[str, BaseDistribution]) -> Array:
    """Return points `[N, D]` as numbers between 0 and 1; a setting that is no number has one for each value."""
    columns: list[Array] = []
    for path, distribution in distributions.items():
        values = [point[path] for point in points]
        if isinstance(distribution, IntDistribution | FloatDistribution):
            columns.append(_scaled(values, [distribution.low, distribution.high], distribution.log))
        elif isinstance(distribution, CategoricalDistribution):
            choices = distribution.choices
            if all(isinstance(one, int | float) and not isinstance(one, bool) for one in choices):
                columns.append(_scaled(values, choices))
            else:
                columns.extend(np.array([float(value == choice) for value in values]) for choice in choices)
    return np.stack(columns, axis=1) if columns else np.zeros((len(points), 0))


def _scaled(values: Sequence[object], ends: Sequence[object], log: bool = False) -> Array:
    given, known = np.array(values, dtype=np.float64), np.array(ends, dtype=np.float64)
    low, high = float(known.min()), float(known.max())
    if low > 0 and (log or high / low > _RATIO):
        given, low, high = np.log(given), math.log(low), math.log(high)
    scaled: Array = (given - low) / ((high - low) or 1.0)
    return scaled


def _curve_of(trial: FrozenTrial) -> list[tuple[int, float, float]]:
    """Return the epochs of a trial; of one that has none, as from another run, the last, whose number is 0."""
    kept = trial.user_attrs.get(EPOCHS)
    return [(int(e), float(a), float(c)) for e, a, c in kept] if kept else [(0, trial.values[0], trial.values[1])]


def _chance(features: Array, measured: Array, failed: Array) -> Array:
    """Return how likely each candidate is not to fail, by what others did."""
    if not len(failed):
        return np.ones(len(features))
    well = np.concatenate([np.ones(len(measured)), np.zeros(len(failed))])
    mean, _ = fitted(np.vstack([measured, failed]), well)(features)
    return np.clip(mean, _LEAST_CHANCE, 1.0)


def _front(points: Array) -> Array:
    """Return the points (ASR, CA) that no other one beats, by rising ASR."""
    order = np.lexsort((-points[:, 1], points[:, 0]))
    best_before = np.concatenate(([-np.inf], np.maximum.accumulate(points[order, 1])[:-1]))
    front: Array = points[order][points[order, 1] > best_before]
    return front


def added(front: Array, asr: Array, ca: Array) -> NDArray[np.float64]:
    """Return the hypervolume that each single point (ASR, CA) would add to a front, up to ASR 1 and CA 0."""
    begins = np.concatenate(([0.0], front[:, 0]))
    ends = np.concatenate((front[:, 0], [1.0]))
    heights = np.concatenate(([0.0], front[:, 1]))
    widths = np.maximum(0.0, ends - np.maximum(begins, asr[..., None]))
    found: NDArray[np.float64] = (widths * np.maximum(0.0, ca[..., None] - heights)).sum(axis=-1)
    return found
