"""A record in MLflow's terms: parameters, metrics, tags. Pure, so that it is tested without MLflow."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import JsonValue

from ubt.config import get_path
from ubt.trials.rates import Rates
from ubt.trials.record import State, TrialRecord

_STATUS = {
    State.RUNNING: "RUNNING",
    State.DONE: "FINISHED",
    State.PRUNED: "KILLED",
    State.FAILED: "FAILED",
    State.INTERRUPTED: "KILLED",
}
_LONGEST_VALUE, _LONGEST_NAME = 5000, 250
"""MLflow cuts or refuses longer ones (6000 for a parameter, 8000 for a tag)."""
_BASE = ("victim", "defense", "metrics")
"""The parts of a study that are its base configuration; the rest says how it is swept."""


@dataclass(frozen=True)
class Point:
    """One value of a curve."""

    name: str
    value: float
    step: int


@dataclass(frozen=True)
class Payload:
    """What one MLflow run shall show."""

    status: str = "RUNNING"
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    curves: tuple[Point, ...] = ()


def of_trial(record: TrialRecord, searched: Sequence[str]) -> Payload:
    """Return what the run of a trial shows. `searched` are the dotted paths of the search space."""
    return Payload(
        status=_STATUS[record.state],
        params={name_of(path): text_of(value) for path, value in _settings(record, searched).items()},
        metrics=_finite(_measurements(record)),
        tags={
            **{f"gate.{gate.gate}": gate.outcome for gate in record.gates},
            "node": record.attempts[-1].node if record.attempts else "",
            "nodes": ", ".join(record.nodes),
            "state": record.state.value,
            "reason": text_of(record.reason),
            "seed": str(record.seed),
            "label": str(record.label),
            "commit": record.commit,
            "device": record.device,
        },
        curves=tuple(_curves(record)),
    )


def of_study(document: Mapping[str, JsonValue]) -> Payload:
    """Return what the parent run shows while the study runs: the base configuration."""
    base = {part: document[part] for part in _BASE if part in document}
    return Payload(params={name_of(path): text_of(value) for path, value in _leaves(base)})


def of_summary(summary: Mapping[str, JsonValue], complete: bool = True) -> Payload:
    """Return what the parent run shows at the end: every number of the summary under its dotted path."""
    numbers = {
        path: float(value)
        for path, value in _leaves(summary)
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
    return Payload(status="FINISHED" if complete else "KILLED", metrics=_finite(numbers))


def text_of(value: JsonValue) -> str:
    """Return a setting as text: bare strings, JSON for the rest."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 1] + "…"


def name_of(path: str) -> str:
    """Return `path` with what MLflow forbids in names replaced."""
    return re.sub(r"[^\w\-. :/]", "_", path)[:_LONGEST_NAME]


def _settings(record: TrialRecord, searched: Sequence[str]) -> dict[str, JsonValue]:
    """Return searched and changed values; a baseline without a searched field simply lacks it."""
    found: dict[str, JsonValue] = {}
    for path in searched:
        try:
            found[path] = get_path(record.config, path)
        except KeyError:
            continue
    return found | record.changes


def _measurements(record: TrialRecord) -> Iterator[tuple[str, float]]:
    yield "seconds", record.seconds
    for stage in record.stages:
        yield f"{stage.stage}.seconds", stage.seconds
        yield from ((f"{stage.stage}.{name}", value) for name, value in stage.diagnostics.items())
    measured = {
        "val": record.val,
        "test": record.test,
        "clean.val": record.clean_val,
        "poisoned.val": record.poisoned_val,
        "poisoned.test": record.poisoned_test,
    }
    yield from ((f"gate.{gate.gate}", gate.measured) for gate in record.gates if gate.measured is not None)
    for split, rates in measured.items():
        yield from ((f"{split}.{name}", value) for name, value in _rates(rates))


def _rates(rates: Rates | None) -> Iterator[tuple[str, float]]:
    found = ((name, getattr(rates, name)) for name in (type(rates).model_fields if rates else ()))
    yield from ((name, float(value)) for name, value in found if isinstance(value, int | float))


def _curves(record: TrialRecord) -> Iterator[Point]:
    """Yield one point of each curve an epoch; steps count on over the stages of a trial."""
    for step, (_, epoch) in enumerate(record.epochs, start=1):
        values = {"val/asr": epoch.val.asr, "val/ca": epoch.val.ca} if epoch.val else {}
        known = ((name, value) for name, value in values.items() if value is not None)
        yield from (Point(name, value, step) for name, value in known if math.isfinite(value))


def _finite(values: Mapping[str, float] | Iterator[tuple[str, float]]) -> dict[str, float]:
    return {name_of(name): float(value) for name, value in dict(values).items() if math.isfinite(value)}


def _leaves(tree: Mapping[str, JsonValue], prefix: str = "") -> Iterator[tuple[str, JsonValue]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
