"""The table of all trials as the page's script takes it: values instead of text, and more columns than are shown.

Which columns are shown can be chosen on the page. Values are formatted there, so that thousands of trials stay small.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from pydantic import JsonValue

from analysis.findings import Findings
from analysis.formatting import changes_text, setting_text, short_names
from analysis.tables import setting
from ubt.trials.record import TrialRecord

MOST_KNOBS = 6
"""At most this many searched settings are shown at first."""
MOST_METRICS = 4
"""At most this many numbers of the study's further metrics, as rebound, are shown at first."""
MOST_DIAGNOSTICS = 40
"""At most this many diagnostics of stages can be shown."""

Format = Literal["text", "number", "percent", "duration"]


@dataclass(frozen=True)
class GridColumn:
    """A column: how it is called, how its values read, and whether it is shown at first."""

    title: str
    format: Format
    value: Callable[[TrialRecord], JsonValue]
    shown: bool = True
    hint: str = ""
    knob: bool = False
    """A searched setting: what is shown of one trial names it too."""


def grid(findings: Findings) -> dict[str, JsonValue]:
    """Return `columns` and `rows` of the table of trials, as JSON."""
    columns = [column for column in _columns(findings) if column.shown or _is_known(column, findings)]
    return {
        "columns": [
            {"title": c.title, "format": c.format, "shown": c.shown, "hint": c.hint, "knob": c.knob, "field": f"c{at}"}
            for at, c in enumerate(columns)
        ],
        "rows": [[_short(column.value(record)) for column in columns] for record in findings.run.records],
        "roles": dict(findings.roles),
    }


def _is_known(column: GridColumn, findings: Findings) -> bool:
    return any(column.value(record) not in {None, ""} for record in findings.run.records)


def _short(value: JsonValue) -> JsonValue:
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _columns(findings: Findings) -> Iterator[GridColumn]:
    run = findings.run
    yield GridColumn("trial", "text", lambda record: record.trial)
    yield GridColumn("state", "text", lambda record: record.state.lower())
    if len({record.seed for record in run.records}) > 1:
        yield GridColumn("seed", "number", lambda record: record.seed)
    if any(str(record.label) for record in run.records):
        yield GridColumn("label", "text", lambda record: record.label.words or str(record.label))
    knobs = short_names(run.space or run.settings)
    if not knobs:
        yield GridColumn("changes to the base", "text", lambda record: ", ".join(changes_text(record.changes, {})))
    for at, (path, title) in enumerate(knobs.items()):
        yield _knob(findings, path, title, shown=at < MOST_KNOBS)
    for split, name, shown in (("val", "val", True), ("test", "test", True), ("poisoned_test", "poisoned test", False)):
        for rate in ("asr", "ca"):
            yield _rate(split, rate, f"{name} {rate.upper()}", shown)
    yield _rate("test", "ca_top5", "test CA top-5", shown=False)
    yield _rate("test", "triggered_accuracy", "test triggered accuracy", shown=False)
    yield GridColumn("time", "duration", lambda record: record.seconds, hint="wall time in its worker")
    yield GridColumn("reused", "number", _reused, hint="stages found in the store")
    yield GridColumn("node", "text", lambda record: record.attempts[-1].node if record.attempts else "", shown=False)
    yield GridColumn("started", "text", lambda record: record.started_at[:19].replace("T", " "), shown=False)
    yield GridColumn("attempts", "number", lambda record: max(1, len(record.attempts)), shown=False)
    yield GridColumn("reason", "text", lambda record: " ".join(record.reason.split())[:200], shown=False)
    names = {(stage.stage, name) for record in run.records for stage in record.stages for name in stage.diagnostics}
    kinds = _metrics(findings)
    ordered = sorted(names, key=lambda of: (of[0] not in kinds, of))
    for at, (stage, name) in enumerate(ordered[:MOST_DIAGNOSTICS]):
        yield _diagnostic(stage, name, of_metric=stage in kinds, shown=stage in kinds and at < MOST_METRICS)


def _metrics(findings: Findings) -> set[str]:
    """Return the kinds of the further metrics that the study asks for: their stages are called like them."""
    asked = [record.config.get("metrics") for record in findings.run.records[:1]]
    metrics = [one for listed in asked if isinstance(listed, list) for one in listed]
    return {str(one.get("kind", "")) for one in metrics if isinstance(one, dict)}


def _knob(findings: Findings, path: str, title: str, shown: bool) -> GridColumn:
    values = [setting(record, path) for record in findings.run.records]
    numbers = all(value is None or (isinstance(value, int | float) and not isinstance(value, bool)) for value in values)

    def value(record: TrialRecord) -> JsonValue:
        found = setting(record, path)
        return found if numbers or found is None else setting_text(found)

    return GridColumn(title, "number" if numbers else "text", value, shown, hint=path, knob=True)


def _rate(split: str, rate: str, title: str, shown: bool) -> GridColumn:
    def value(record: TrialRecord) -> JsonValue:
        found: float | None = getattr(getattr(record, split), rate, None)
        return found

    return GridColumn(title, "percent", value, shown)


def _diagnostic(stage: str, name: str, of_metric: bool, shown: bool) -> GridColumn:
    def value(record: TrialRecord) -> JsonValue:
        return next((done.diagnostics.get(name) for done in record.stages if done.stage == stage), None)

    hint = "a further metric of the defended model" if of_metric else "diagnostic of a stage"
    return GridColumn(f"{stage} {name}", "number", value, shown, hint)


def _reused(record: TrialRecord) -> int:
    return sum(stage.reused for stage in record.stages)
