"""How much each knob matters, by Optuna's evaluators: the share of what varies, and what it takes to be among the best.

Both describe the trials that were run. Where a search chose them by results, they lie where it found something, and an
importance is of that region more than of the space (Hutter et al., ICML 2014; Watanabe et al., IJCAI 2023).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from analysis.effects.evaluator_process import EvaluatorProcess
from analysis.effects.evaluators import Columns, Points, Weights, weigh
from analysis.findings import Findings
from analysis.formatting import setting_text, short_names
from analysis.tables import setting

FEWEST = 12
"""Configurations below which importances are not worked out: a forest of fewer fits noise."""
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
    return _begun(findings, None)()


def begin_importances(findings: Findings, process: EvaluatorProcess | None) -> Callable[[], Importances]:
    """Begin to work them out in a process beside this one, if there is one; return what waits for them."""
    return _begun(findings, process)


def _begun(findings: Findings, process: EvaluatorProcess | None) -> Callable[[], Importances]:
    run = findings.run
    adaptive = run.design == "optuna" or any(record.asked_as for record in run.records)
    measured = [c for c in findings.searched if c.point and not c.first.label.leaves_out]
    paths = [path for path in run.space if len({setting_text(setting(c.first, path)) for c in measured}) > 1]
    crossed = any(sum(path in c.changes for path in paths) > 1 for c in measured)
    best = max(AMONG_BEST, math.ceil(len(measured) / 10))
    none = Importances((), len(measured), adaptive, best)
    if run.compared or len(paths) < 2 or len(measured) < FEWEST or not crossed:
        if process:
            process.close()
        return lambda: none
    columns = {path: [setting(c.first, path) for c in measured] for path in paths}
    points = [point for c in measured if c.val and (point := c.val.point)]
    weights = _weights(columns, points, best, process)
    return lambda: replace(none, knobs=_knobs(paths, weights()))


_LAST: dict[str, Weights] = {}
"""What was worked out last, by what of: the same run's pictures for MLflow ask for it again."""


def _weights(columns: Columns, points: Points, best: int, process: EvaluatorProcess | None) -> Callable[[], Weights]:
    given = json.dumps({"columns": columns, "points": points, "best": best})
    if known := _LAST.get(given):
        return lambda: known
    here = partial(weigh, columns, points, best)
    wait = process.weigh(given, here) if process else here

    def work_out() -> Weights:
        weights = wait()
        _LAST.clear()
        _LAST[given] = weights
        return weights

    return work_out


def _knobs(paths: Sequence[str], weights: Weights) -> tuple[Importance, ...]:
    names = short_names(paths)

    def rate(path: str, at: int) -> RateImportance:
        return RateImportance(
            weights["variance"][at][path], weights["among_best"][at][path], weights["trends"][path][at]
        )

    found = [Importance(path, names[path], rate(path, 0), rate(path, 1), weights["front"][path]) for path in paths]
    return tuple(sorted(found, key=lambda one: -max(one.asr.variance, one.ca.variance)))
