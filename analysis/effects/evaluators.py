"""What Optuna's evaluators make of configurations and their rates: plain values in, plain values out.

As `python -m analysis.effects.evaluators` this is a process of its own, which reads from its standard input and writes
to its standard output: the evaluators and what they import take as long as all else of a report, so they run beside it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, TypedDict

from pydantic import JsonValue

from analysis.formatting import setting_text

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution

FOR_FOREST = 1000
"""At most so many configurations, evenly drawn, go into the forest."""
FOR_DEEP_FOREST = 250
"""Of more than so many, 32 trees of depth 6 are grown: the shares differ by 0.03 at most, and are there in a second."""

Columns = Mapping[str, Sequence[JsonValue]]
"""Path of a knob → its value in each configuration."""
Points = Sequence[tuple[float, float]]
"""ASR and CA of each configuration."""


class Weights(TypedDict):
    """What each knob is to ASR and to CA, and to both together."""

    variance: list[dict[str, float]]
    """Of ASR, of CA: path → its share of the variance (fANOVA)."""
    among_best: list[dict[str, float]]
    """Of ASR, of CA: path → its share in what sets the best apart (PED-ANOVA)."""
    front: dict[str, float]
    """Path → its share in what sets configurations on and near the front apart (PED-ANOVA)."""
    trends: dict[str, list[float | None]]
    """Path → Spearman's correlation with ASR and with CA; None of words, and where a rate is always equal."""


def weigh(columns: Columns, points: Points, best: int) -> Weights:
    """Return what each knob is to the rates; the `best` so many configurations are what the others are held against."""
    from optuna.importance import PedAnovaImportanceEvaluator  # noqa: PLC0415 — slow to import

    with _quiet():
        study = _study(columns, points)
        quantile = PedAnovaImportanceEvaluator(target_quantile=best / len(points))
        # It takes low values for good ones: CA has to be turned round.
        among_best = [_shares(study, quantile, target) for target in (lambda t: t.values[0], lambda t: -t.values[1])]
        front = _shares(study, quantile, None)
        variance = _variance(study, columns, points)
    trends = {path: _trends(values, points) for path, values in columns.items()}
    return Weights(variance=variance, among_best=among_best, front=front, trends=trends)


def _variance(study: optuna.Study, columns: Columns, points: Points) -> list[dict[str, float]]:
    from optuna.importance import FanovaImportanceEvaluator  # noqa: PLC0415 — slow to import

    step = -(-len(points) // FOR_FOREST)
    if step > 1:
        study = _study({path: values[::step] for path, values in columns.items()}, points[::step])
    trees, depth = (64, 64) if len(points[::step]) <= FOR_DEEP_FOREST else (32, 6)
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


def _study(columns: Columns, points: Points) -> optuna.Study:
    """Return the configurations as a study in memory, with their rates as its two objectives."""
    import optuna  # noqa: PLC0415 — slow to import

    spaces = {path: distribution_of(values) for path, values in columns.items()}
    study = optuna.create_study(directions=["minimize", "maximize"])
    for at, rates in enumerate(points):
        params = {path: param_of(values[at], spaces[path]) for path, values in columns.items()}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=spaces, values=list(rates)))
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


def _trends(values: Sequence[JsonValue], points: Points) -> list[float | None]:
    from scipy.stats import spearmanr  # noqa: PLC0415 — slow to import

    numbers = _numbers(values)
    if numbers is None:
        return [None, None]
    rates = list(zip(*points, strict=True))
    return [float(spearmanr(numbers, rate).statistic) if len(set(rate)) > 1 else None for rate in rates]


def main() -> None:
    """Read columns, points and how many are the best; write what each knob is."""
    for module in ("optuna.importance", "sklearn.ensemble", "scipy.stats"):
        import_module(module)  # most of the time, before there is anything to read
    given = json.load(sys.stdin)
    json.dump(weigh(given["columns"], [(asr, ca) for asr, ca in given["points"]], given["best"]), sys.stdout)


if __name__ == "__main__":
    main()
