"""A record in MLflow's terms: parameters, metrics, curves, tags, a note. Pure, so that it is tested without MLflow.

A metric's name is `group/name`: MLflow's pages group charts by what stands before the slash.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from pydantic import JsonValue

from analysis.formatting import setting_text, short_names
from ubt.config import get_path
from ubt.trials.failures import Failure
from ubt.trials.rates import Rates
from ubt.trials.record import StageRecord, State, TrialRecord

_STATUS = {
    State.RUNNING: "RUNNING",
    State.DONE: "FINISHED",
    State.PRUNED: "KILLED",
    State.FAILED: "FAILED",
    State.INTERRUPTED: "KILLED",
}
_LONGEST_VALUE, _LONGEST_METRIC, _LONGEST_RUN_NAME = 5000, 250, 120
"""MLflow cuts or refuses longer values (6000 for a parameter, 8000 for a tag) and names of metrics."""
NOTE = "mlflow.note.content"
"""The tag that MLflow shows as a run's description, in Markdown."""


@dataclass(frozen=True)
class Point:
    """One value of a curve."""

    name: str
    value: float
    step: int
    at_ms: int = 0
    """When it was measured."""


@dataclass(frozen=True)
class DataInput:
    """A part of the data that a run used."""

    name: str
    digest: str
    context: str
    """What for: `training`, `validation` or `test`."""
    count: int
    """Pairs or images."""
    kind: str
    source: str


@dataclass(frozen=True)
class Payload:
    """What one MLflow run shall show."""

    status: str = "RUNNING"
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    step: int = 0
    """Of the metrics: of a study how many trials have ended, so that they are curves of a sweep that is watched."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """An empty one is not there, or no longer."""
    curves: tuple[Point, ...] = ()
    """Those of one name by rising step."""
    inputs: tuple[DataInput, ...] = ()


@dataclass(frozen=True)
class Standing:
    """What a trial is among the trials of its run."""

    front: str = ""
    """At which of its epochs its configuration is on the front: `end`, `3`, `2, 3, end`; empty if at none, …"""
    chosen: str = ""
    """… and at which it is chosen."""
    means: Mapping[str, float] = field(default_factory=dict)
    """Over the seeds of its configuration, if it has several."""

    def __bool__(self) -> bool:
        return bool(self.front or self.chosen or self.means)

    @property
    def tags(self) -> dict[str, str]:
        """Return the tags that say it, on every seed of a configuration."""
        found = {"front": self.front, "chosen": self.chosen}
        return {name: "true" if at else "" for name, at in found.items()} | {f"{n}_at": at for n, at in found.items()}


def of_trial(record: TrialRecord) -> Payload:
    """Return what the run of a trial shows by itself; what it is among others its `Standing`."""
    return Payload(
        status=_STATUS[record.state],
        params={name_of(path): text_of(value) for path, value in leaves(record.config)},
        metrics=_finite(_measurements(record)),
        tags={
            **{f"gate.{gate.gate}": gate.outcome for gate in record.gates},
            NOTE: note_of(record),
            "state": record.state.value,
            "pruned": "true" if record.state is State.PRUNED else "",
            "reason": text_of(record.reason),
            "configuration": configuration_of(record),
            "seed": str(record.seed),
            "component": record.label.component,
            "epoch_of": record.label.epoch_of,
            **({} if record.label.cell is None else {"cell": str(record.label.cell)}),
            "node": record.attempts[-1].node if record.attempts else "",
            "nodes": ", ".join(record.nodes),
            "device": record.device,
            "commit": record.commit,
        },
        curves=tuple(point for point in _curves(record) if math.isfinite(point.value)),
    )


def run_name_of(record: TrialRecord) -> str:
    """Return what a trial's run is called: its name, and what sets it apart from the base.

    Example: `t0005 suspicious_ratio=0.1 unlearn_samples=128`, `t0002-s1 without overfitting`.
    """
    names = short_names(record.changes)
    changes = " ".join(f"{names[path]}={setting_text(value)}" for path, value in record.changes.items())
    what = record.label.leaves_out or (str(record.label.cell) if record.label.cell else changes)
    return shortened(f"{record.trial} {what or 'base'}", _LONGEST_RUN_NAME)


def configuration_of(record: TrialRecord) -> str:
    """Return the name of a trial's configuration: that of the trial without its seed, `t0005` of `t0005-s1`."""
    return re.sub(r"-s\d+$", "", record.trial)


def note_of(record: TrialRecord) -> str:
    """Return a trial's description in Markdown: why it did not get to its end; nothing if it did, or runs."""
    if record.state in {State.DONE, State.RUNNING}:
        return ""
    title = {State.PRUNED: "Pruned", State.FAILED: _FAILED[record.failed_by], State.INTERRUPTED: "Interrupted"}
    done = [stage.stage for stage in record.stages if stage.complete]
    reached = f"Its last finished stage is `{done[-1]}`." if done else "No stage was finished."
    quoted = text_of(record.reason or "no reason was recorded").replace("```", "'''")
    lines = [f"**{title[record.state]}**", f"```text\n{quoted}\n```", reached]
    if record.lost or record.state is State.INTERRUPTED:
        lines.append("This says nothing of the configuration: a resume runs the trial again.")
    if len(record.attempts) > 1:
        lines.append(f"It was started {len(record.attempts)} times; `record.json` says how each attempt ended.")
    return "\n\n".join(lines)


_FAILED: Mapping[Failure | None, str] = {
    Failure.FAULT: "Failed by a fault of the machine",
    Failure.MISTAKE: "Failed by a mistake in what was given, or in code",
    Failure.METHOD: "Failed by the method: this configuration has no result",
    None: "Failed",
}


def text_of(value: JsonValue) -> str:
    """Return a setting as text: bare strings, JSON for the rest."""
    return shortened(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False), _LONGEST_VALUE)


def shortened(text: str, limit: int) -> str:
    """Return a text that is not longer than `limit`."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def name_of(path: str) -> str:
    """Return `path` with what MLflow forbids in names replaced."""
    return re.sub(r"[^\w\-. :/]", "_", path)[:_LONGEST_METRIC]


def leaves(tree: Mapping[str, JsonValue], prefix: str = "") -> Iterator[tuple[str, JsonValue]]:
    """Yield every value of a tree that is no mapping, with its dotted path."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def milliseconds(utc: str) -> int:
    """Return an ISO time as MLflow wants it, or 0 if there is none."""
    try:
        moment = datetime.fromisoformat(utc)
    except ValueError:
        return 0
    return round(1000 * (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


def rates_of(name: str, rates: Rates | None) -> Iterator[tuple[str, float]]:
    """Yield attack success and clean accuracy of one split, with the ends of their 95 % intervals beside them."""
    if rates is None:
        return
    found = {"asr": rates.asr, "asr_low": rates.asr_low, "asr_high": rates.asr_high}
    found |= {"ca": rates.ca, "ca_low": rates.ca_low, "ca_high": rates.ca_high}
    yield from ((f"{name}{rate}", value) for rate, value in found.items() if value is not None)


def _measurements(record: TrialRecord) -> Iterator[tuple[str, float]]:
    yield from rates_of("test/", record.test)
    yield from ((name, value) for name, value in rates_of("val/", record.val) if name not in _BY_EPOCH)
    measured = {"test": record.poisoned_test, "val": record.poisoned_val}
    for split, rates in measured.items():
        yield from ((f"poisoned/{split}_{rate}", value) for rate, value in rates_of("", rates) if rate in _RATES)
    if record.clean_val:
        yield "clean/val_ca", record.clean_val.ca
    for stage in record.stages:
        yield from ((f"chain/{stage.stage}_{name}", value) for name, value in stage.diagnostics.items())
        yield f"time/{stage.stage}_s", stage.seconds
    yield "time/trial_s", record.seconds
    yield "time/saved_s", sum(stage.saved_seconds for stage in record.stages)
    yield from ((f"gate/{gate.gate}", gate.measured) for gate in record.gates if gate.measured is not None)


_RATES = ("asr", "ca")
_BY_EPOCH = ("val/asr", "val/ca")


def _curves(record: TrialRecord) -> Iterator[Point]:
    """Yield losses and rates by epoch.

    Rates begin at step 0, the poisoned model, and count on over the stages of a trial. An epoch that was judged on a
    part of the split has a curve of its own: it is not to be read beside others.
    """
    began = milliseconds(record.started_at)
    if record.poisoned_val:
        yield from _rate_points("val", record.poisoned_val, 0, began)
    step, judged = 0, 0
    for stage in record.stages:
        at = milliseconds(stage.started_at) or began
        for epoch in stage.epochs:
            at += round(1000 * epoch.seconds)
            step += epoch.val is not None
            if epoch.loss is not None:
                yield Point(f"loss/{name_of(stage.stage)}", epoch.loss, step if epoch.val else epoch.epoch, at)
            if epoch.val is not None:
                judged = judged if epoch.val.provisional else step
                yield from _rate_points("val_part" if epoch.val.provisional else "val", epoch.val, step, at)
    if record.val and (judged < step or not step):
        yield from _rate_points("val", record.val, max(1, step), _ended(record.stages) or began)


def _rate_points(group: str, rates: Rates, step: int, at_ms: int) -> Iterator[Point]:
    yield from (Point(f"{group}/{rate}", value, step, at_ms) for rate, value in rates_of("", rates) if rate in _RATES)


def _ended(stages: Sequence[StageRecord]) -> int:
    return max((milliseconds(stage.ended_at) for stage in stages if stage.ended_at), default=0)


def _finite(values: Iterator[tuple[str, float]]) -> dict[str, float]:
    return {name_of(name): float(value) for name, value in values if math.isfinite(value)}


def setting_at(record: TrialRecord, path: str) -> JsonValue:
    """Return a trial's value of a setting; None if its configuration has none."""
    try:
        return get_path(record.config, path)
    except KeyError:
        return None
