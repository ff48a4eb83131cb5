"""How much each knob matters, by Optuna's evaluators: the share of what varies, and what it takes to be among the best.

Both describe the trials that were run. Where a search chose them by results, they lie where it found something, and an
importance is of that region more than of the space (Hutter et al., ICML 2014; Watanabe et al., IJCAI 2023).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import JsonValue

from analysis.findings import Findings
from analysis.formatting import setting_text, short_names
from analysis.points.configurations import Configuration
from analysis.tables import setting

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution

FEWEST = 12
"""Configurations below which importances are not worked out: a forest of fewer fits noise."""
FOR_FOREST = 1000
"""At most so many configurations, evenly drawn, go into the forest."""
FOR_DEEP_FOREST = 250
"""Of more than so many, 32 trees of depth 6 are grown: the shares differ by 0.03 at most, and are there in a second."""
AMONG_BEST = 5
"""PED-ANOVA wants at least so many trials among the best."""


@dataclass(frozen=True)
class RateImportance:
    """What a knob is to one rate, on validation."""

    variance: float
    """The share of the rate's variance that is the knob's alone (fANOVA), in [0, 1]; the rest of 1 lies in other knobs,
    and in several together."""
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
    from optuna.importance import PedAnovaImportanceEvaluator  # noqa: PLC0415 — slow to import

    with _quiet():
        study = _study(measured, paths)
        quantile = PedAnovaImportanceEvaluator(target_quantile=best / len(measured))
        # It takes low values for good ones: CA has to be turned round.
        among_best = [_shares(study, quantile, target) for target in (lambda t: t.values[0], lambda t: -t.values[1])]
        front = _shares(study, quantile, None)
        variance = _variance(study, measured, paths)
    names, trends = short_names(paths), {path: _trends(measured, path) for path in paths}
    rates = {
        path: [RateImportance(variance[at][path], among_best[at][path], trends[path][at]) for at in (0, 1)]
        for path in paths
    }
    found = [Importance(path, names[path], rates[path][0], rates[path][1], front[path]) for path in paths]
    return tuple(sorted(found, key=lambda one: -max(one.asr.variance, one.ca.variance)))


def _variance(study: optuna.Study, measured: Sequence[Configuration], paths: Sequence[str]) -> list[dict[str, float]]:
    from optuna.importance import FanovaImportanceEvaluator  # noqa: PLC0415 — slow to import

    drawn = measured[:: -(-len(measured) // FOR_FOREST)]
    study = study if len(drawn) == len(measured) else _study(drawn, paths)
    trees, depth = (64, 64) if len(drawn) <= FOR_DEEP_FOREST else (32, 6)
    return [
        _shares(study, FanovaImportanceEvaluator(n_trees=trees, max_depth=depth, seed=0), target, normalize=False)
        for target in (lambda trial: trial.values[0], lambda trial: trial.values[1])
    ]


def _shares(
    study: optuna.Study,
    evaluator: optuna.importance.BaseImportanceEvaluator,
    target: Callable[[optuna.trial.FrozenTrial], float] | None,
    normalize: bool = True,
) -> dict[str, float]:
    from optuna.importance import get_param_importances  # noqa: PLC0415 — slow to import

    return dict(get_param_importances(study, evaluator=evaluator, target=target, normalize=normalize))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Optuna from telling of the study in memory, and that an evaluator may change."""
    import warnings  # noqa: PLC0415

    import optuna  # noqa: PLC0415 — slow to import

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            warnings.filterwarnings("ignore", "PedAnovaImportanceEvaluator computes")  # what is low is good: it is here
            yield
    finally:
        optuna.logging.set_verbosity(before)


def _study(measured: Sequence[Configuration], paths: Sequence[str]) -> optuna.Study:
    """Return the configurations as a study in memory, with their mean rates on validation as its two objectives."""
    import optuna  # noqa: PLC0415 — slow to import

    columns = {path: [setting(c.first, path) for c in measured] for path in paths}
    spaces = {path: distribution_of(values) for path, values in columns.items()}
    study = optuna.create_study(directions=["minimize", "maximize"])
    for at, configuration in enumerate(measured):
        params = {path: param_of(columns[path][at], spaces[path]) for path in paths}
        rates = configuration.val.point if configuration.val else None
        study.add_trial(optuna.trial.create_trial(params=params, distributions=spaces, values=rates))
    return study


def distribution_of(values: Sequence[JsonValue]) -> BaseDistribution:
    """Return what a knob was varied over: numbers between the ends that were met, or words."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution  # noqa: PLC0415

    numbers = _numbers(values)
    if numbers is None:
        return CategoricalDistribution(tuple(dict.fromkeys(map(setting_text, values))))
    log = min(numbers) > 0 and max(numbers) / min(numbers) > 10
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


def _trends(measured: Sequence[Configuration], path: str) -> tuple[float | None, float | None]:
    """Return Spearman's correlation of a knob with ASR and with CA; None of words, and where a rate is always equal."""
    from scipy.stats import spearmanr  # noqa: PLC0415 — slow to import

    numbers = _numbers([setting(c.first, path) for c in measured])
    points = [point for c in measured if c.val and (point := c.val.point)]
    if numbers is None:
        return None, None
    rates = list(zip(*points, strict=True))
    found = [float(spearmanr(numbers, rate).statistic) if len(set(rate)) > 1 else None for rate in rates]
    return found[0], found[1]
