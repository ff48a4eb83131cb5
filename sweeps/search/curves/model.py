"""What configurations are expected to come to after each epoch: two Gaussian processes over settings and epoch.

A trial that is stopped early teaches as much as it has measured, and the last epochs of a long one tell what the first
ones of another lead to. How far settings matter is fitted anew for each question, so that an answer follows from what
is known alone.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Curve = Sequence[tuple[int, float, float]]
"""(epoch, ASR, CA) of each judged epoch of a trial."""

_MOST_POINTS = 200
"""Epochs that are learnt from: time grows with the cube."""
_LEAST_OF_A_CURVE, _MOST_OF_A_CURVE = 2, 4
_STEPS = 15
"""Of fitting how far settings matter."""
_LENGTHS = (0.5, 20.0)
"""How far, of the range of a setting, what is measured tells of others: shorter ones let few trials say nothing."""


def _thinned(curve: Curve, most: int) -> list[tuple[int, float, float]]:
    """Return at most so many epochs of a curve, the last one among them, dense at the beginning."""
    if len(curve) <= most:
        return list(curve)
    picked = np.unique(np.round(np.geomspace(1, len(curve), most)).astype(int))
    return [curve[at - 1] for at in picked]


@dataclass(frozen=True)
class Belief:
    """What is expected of configurations after each epoch: means and standard deviations `[2, N, E]`."""

    mean: Array
    deviation: Array


class CurveModel:
    """Fitted to the curves of known points; predicts those of others."""

    def __init__(self, features: Array, curves: Sequence[Curve], horizon: int) -> None:
        """Fit `features[N, D]` to as many curves; `horizon` is the last epoch that any has."""
        most = max(_LEAST_OF_A_CURVE, min(_MOST_OF_A_CURVE, _MOST_POINTS // max(1, len(curves))))
        thin = [_thinned(curve, most) for curve in curves]
        self._horizon = horizon
        rows = [(*features[at], self._place(epoch)) for at, curve in enumerate(thin) for epoch, _, _ in curve]
        self._inputs = np.array(rows, dtype=np.float64)[-_MOST_POINTS:]
        self._targets = np.array([one[1:] for curve in thin for one in curve], dtype=np.float64)[-_MOST_POINTS:]
        self._fitted = [fitted(self._inputs, target) for target in self._targets.T]

    def _place(self, epoch: int) -> float:
        return math.log(epoch + 1) / math.log(self._horizon + 1)

    def predict(self, features: Array, epochs: Sequence[int]) -> Belief:
        """Return what is expected of `features[N, D]` after each of some epochs."""
        count = len(features)
        places = np.repeat([self._place(epoch) for epoch in epochs], count)[:, None]
        asked = np.hstack([np.tile(features, (len(epochs), 1)), places])
        found = [one(asked) for one in self._fitted]
        shaped = [np.stack([one[part].reshape(len(epochs), count).T for one in found]) for part in (0, 1)]
        return Belief(*shaped)


def fitted(inputs: Array, target: Array) -> Callable[[Array], tuple[Array, Array]]:
    """Fit a Gaussian process; return what predicts means and standard deviations, without the noise of one run."""
    from scipy.optimize import minimize  # noqa: PLC0415 — half a second, for searches that need it
    from sklearn.exceptions import ConvergenceWarning  # noqa: PLC0415
    from sklearn.gaussian_process import GaussianProcessRegressor  # noqa: PLC0415
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel  # noqa: PLC0415

    def few_steps(loss: Callable[..., object], start: Array, bounds: Array) -> tuple[Array, float]:
        found = minimize(loss, start, jac=True, bounds=bounds, method="L-BFGS-B", options={"maxiter": _STEPS})
        return found.x, float(found.fun)

    scales = np.ones(inputs.shape[1])
    kernel = ConstantKernel(1.0, (0.05, 20.0)) * Matern(scales, _LENGTHS, nu=2.5) + WhiteKernel(0.05, (1e-3, 1.0))
    process = GaussianProcessRegressor(kernel, normalize_y=True, optimizer=few_steps)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a length at its bound: that setting does not matter
        process.fit(inputs, target)
    noise = float(process.kernel_.k2.noise_level) * float(target.std()) ** 2

    def predict(asked: Array) -> tuple[Array, Array]:
        mean, deviation = process.predict(asked, return_std=True)
        return mean, np.sqrt(np.maximum(deviation**2 - noise, 0.0))

    return predict
