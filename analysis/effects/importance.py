"""How much each knob matters: its share of what varies, and its part in what it takes to be among the best.

Both describe the trials that were run. Where a search chose them by results, they lie where it found something, and an
importance is of that region more than of the space (Hutter et al., ICML 2014; Watanabe et al., IJCAI 2023).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import JsonValue

from analysis.effects.ped_anova import axis_of, lowest, nearest_front, shares_among_best, spans_decades
from analysis.effects.variance import variance_shares
from analysis.findings import Findings
from analysis.formatting import setting_text, short_names
from analysis.points.configurations import Configuration
from analysis.points.geometry import points_of
from analysis.tables import setting

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

FEWEST = 12
"""Configurations below which importances are not worked out: what fits fewer fits noise."""
AMONG_BEST = 5
"""PED-ANOVA wants at least so many trials among the best."""


@dataclass(frozen=True)
class RateImportance:
    """What a knob is to one rate, on validation."""

    variance: float
    """The share of the rate's variance that is the knob's alone (functional ANOVA), in [0, 1]; the rest of 1 lies in
    other knobs, in several together, and in chance."""
    among_best: float
    """The share of the knob in what sets the best trials apart (PED-ANOVA): all knobs together have 1."""
    trend: float | None
    """Spearman's correlation of the knob with the rate, in [-1, 1]: above 0 the rate rises with it. None of words."""


@dataclass(frozen=True)
class Importance:
    """What one knob is to the rates."""

    path: str
    name: str
    asr: RateImportance
    ca: RateImportance
    front: float
    """Its share in what sets trials on and near the front apart (PED-ANOVA over both rates)."""


@dataclass(frozen=True)
class Importances:
    """The knobs of a search, and how many configurations that was worked out of."""

    knobs: tuple[Importance, ...]
    """By the larger of their two shares of variance."""
    configurations: int
    adaptive: bool
    """Whether the search chose them by results."""
    best: int
    """How many of them count as the best."""

    def __bool__(self) -> bool:
        return bool(self.knobs)


def find_importances(findings: Findings) -> Importances:
    """Work out how much each knob matters; nothing, unless several knobs were varied at once in enough trials."""
    run = findings.run
    adaptive = run.design == "optuna" or any(record.asked_as for record in run.records)
    measured = [c for c in findings.searched if c.point and not c.first.label.leaves_out]
    paths = [path for path in run.space if len({setting_text(setting(c.first, path)) for c in measured}) > 1]
    crossed = any(sum(path in c.changes for path in paths) > 1 for c in measured)
    best = max(AMONG_BEST, math.ceil(len(measured) / 10))
    if run.compared or len(paths) < 2 or len(measured) < FEWEST or not crossed:
        return Importances((), len(measured), adaptive, best)
    return Importances(_importances(measured, paths, best), len(measured), adaptive, best)


def _importances(measured: Sequence[Configuration], paths: Sequence[str], best: int) -> tuple[Importance, ...]:
    columns = {path: _column([setting(c.first, path) for c in measured]) for path in paths}
    points = points_of(c.val.point for c in measured if c.val)
    axes = {path: axis_of(values) for path, values in columns.items()}
    front = shares_among_best(axes, nearest_front(points, best))
    variance, among_best, trends = [], [], []
    for rate, sign in ((points[:, 0], 1), (points[:, 1], -1)):  # low ASR and high CA are good
        variance.append(variance_shares(columns, rate))
        among_best.append(shares_among_best(axes, lowest(sign * rate, best)))
        trends.append(_trends(columns, rate))
    names = short_names(paths)
    rates = {
        path: [RateImportance(variance[at][path], among_best[at][path], trends[at].get(path)) for at in (0, 1)]
        for path in paths
    }
    found = [Importance(path, names[path], rates[path][0], rates[path][1], front[path]) for path in paths]
    return tuple(sorted(found, key=lambda one: -max(one.asr.variance, one.ca.variance)))


def _column(values: Sequence[JsonValue]) -> list[float | str]:
    """Return the values of a knob: numbers if all are, else words."""
    return list(_numbers(values) or map(setting_text, values))


def _trends(columns: Mapping[str, Sequence[float | str]], rate: NDArray[np.float64]) -> dict[str, float]:
    """Return Spearman's correlation of each knob with a rate; nothing of words, and of a rate that is always equal."""
    if not np.ptp(rate):
        return {}
    numbers = {path: values for path, values in columns.items() if not isinstance(values[0], str)}
    found = pd.DataFrame(numbers).rank().corrwith(pd.Series(rate).rank())
    return {str(path): float(trend) for path, trend in found.items()}


def distribution_of(values: Sequence[JsonValue]) -> BaseDistribution:
    """Return what a knob was varied over: numbers between the ends that were met, or words."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution  # noqa: PLC0415

    numbers = _numbers(values)
    if numbers is None:
        return CategoricalDistribution(tuple(dict.fromkeys(map(setting_text, values))))
    log = spans_decades(numbers)
    if all(isinstance(number, int) for number in numbers):
        return IntDistribution(int(min(numbers)), int(max(numbers)), log=log)
    return FloatDistribution(float(min(numbers)), float(max(numbers)), log=log)


def param_of(value: JsonValue, space: BaseDistribution) -> JsonValue:
    """Return a knob's value as Optuna has it: words as text."""
    return setting_text(value) if type(space).__name__ == "CategoricalDistribution" else value


def _numbers(values: Sequence[JsonValue]) -> list[int | float] | None:
    """Return the values if all are numbers."""
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    return numbers if len(numbers) == len(values) else None
