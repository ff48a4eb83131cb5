"""Trials, stages, epochs and configurations as pandas tables: one `Column` for each thing that is shown of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Generic, TypeVar

import pandas as pd
from pydantic import JsonValue

from analysis.findings import Findings
from analysis.formatting import setting_text
from analysis.points.configurations import Configuration, Outcome
from analysis.records import RunRecords, value_at
from ubt.trials.gates import GateOutcome
from ubt.trials.rates import PerClass, Rates
from ubt.trials.record import StageRecord, TrialRecord

Item = TypeVar("Item")


@dataclass(frozen=True)
class Column(Generic[Item]):
    """A column: its name, and how its value is read off the thing that a line is about."""

    name: str
    value: Callable[[Item], object]

    def read(self, items: Sequence[Item]) -> Iterator[tuple[str, list[object]]]:
        """Yield its name with its value for each item."""
        value = self.value
        yield self.name, [value(item) for item in items]


RATE_FIELDS = (
    *("asr", "asr_low", "asr_high", "asr_images", "ca", "ca_low", "ca_high", "ca_images"),
    *("ca_top5", "triggered_accuracy", "subset"),
)


@dataclass(frozen=True)
class RateColumns(Generic[Item]):
    """ASR and CA with their intervals and numbers of images, and what else is measured, named by the split."""

    split: str
    rates: Callable[[Item], Rates | None]
    """They are looked for once: of most epochs there are none."""

    def read(self, items: Sequence[Item]) -> Iterator[tuple[str, list[object]]]:
        """Yield each column's name with its value for each item."""
        found = [self.rates(item) for item in items]
        for field in RATE_FIELDS:
            value = attrgetter(field)
            yield f"{self.split}_{field}", [None if rates is None else value(rates) for rates in found]


Columns = Column[Item] | RateColumns[Item]


def tabulate(items: Sequence[Item], columns: Iterable[Columns[Item]]) -> pd.DataFrame:
    """Return a table with a line for each item; a value that is None becomes a missing value."""
    return pd.DataFrame({name: values for column in columns for name, values in column.read(items)})


IDENTITY: tuple[Column[TrialRecord], ...] = (
    Column("number", lambda record: record.number),
    Column("trial", lambda record: record.trial),
    Column("state", lambda record: str(record.state)),
    Column("reason", lambda record: record.reason),
    Column("seed", lambda record: record.seed),
)
OUTCOME: tuple[Columns[TrialRecord], ...] = (
    RateColumns("val", lambda record: record.val),
    RateColumns("test", lambda record: record.test),
    RateColumns("poisoned_val", lambda record: record.poisoned_val),
    RateColumns("poisoned_test", lambda record: record.poisoned_test),
    Column("clean_val_ca", lambda record: record.clean_val.ca if record.clean_val else None),
    Column("seconds", lambda record: record.seconds),
    Column("stages_computed", lambda record: sum(not stage.reused for stage in record.stages)),
    Column("stages_reused", lambda record: sum(stage.reused for stage in record.stages)),
    Column("attempts", lambda record: max(1, len(record.attempts))),
    Column("started_at", lambda record: record.started_at),
    Column("node", lambda record: record.attempts[-1].node if record.attempts else ""),
    Column("device", lambda record: record.device),
    Column("commit", lambda record: record.commit),
)
OF_EACH_STAGE: tuple[Column[StageRecord], ...] = (
    Column("seconds", lambda stage: stage.seconds),
    Column("reused", lambda stage: stage.reused),
    Column("peak_memory_bytes", lambda stage: stage.peak_memory_bytes),
)


def trials_table(run: RunRecords) -> pd.DataFrame:
    """Return one line a trial: identity, every changed setting, outcome, gates, and `<stage>.<diagnostic>` columns."""
    records, settings = run.records, map(setting_column, run.settings)
    return tabulate(
        records, (*IDENTITY, *settings, *OUTCOME, *_columns_of_gates(records), *_columns_of_stages(records))
    )


def _columns_of_gates(records: Sequence[TrialRecord]) -> Iterable[Column[TrialRecord]]:
    """Return for each gate what it found, and what it measured: `gate.<name>` and `gate.<name>.measured`."""

    def column(name: str, ending: str, value: Callable[[GateOutcome], object]) -> Column[TrialRecord]:
        def found(record: TrialRecord) -> object:
            return next((value(gate) for gate in record.gates if gate.gate == name), None)

        return Column(f"gate.{name}{ending}", found)

    for name in dict.fromkeys(gate.gate for record in records for gate in record.gates):
        yield column(name, "", lambda gate: gate.outcome)
        yield column(name, ".measured", lambda gate: gate.measured)


def setting_column(path: str) -> Column[TrialRecord]:
    """Return the column of one setting, read from the trial's whole configuration."""
    return Column(path, lambda record: as_scalar(setting(record, path)))


def setting(record: TrialRecord, path: str) -> JsonValue:
    """Return the value of a setting; None where the trial's defense has no such setting."""
    return value_at(record.config, path)


def as_scalar(value: JsonValue) -> str | float | bool | None:
    """Return a JSON value as one value of a table: parts with a kind as words, lists and other objects as JSON text."""
    if isinstance(value, dict) and "kind" in value:
        return setting_text(value)
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value


def _columns_of_stages(records: Sequence[TrialRecord]) -> Iterable[Column[TrialRecord]]:
    """Return a column for each diagnostic of each stage, then each stage's seconds, reuse and memory."""
    by_trial = {record.trial: {stage.stage: stage for stage in reversed(record.stages)} for record in records}

    def column(name: str, of_stage: Column[StageRecord]) -> Column[TrialRecord]:
        def value(record: TrialRecord) -> object:
            stage = by_trial[record.trial].get(name)
            return None if stage is None else of_stage.value(stage)

        return Column(f"{name}.{of_stage.name}", value)

    stages = [stage for record in records for stage in record.stages]
    found = dict.fromkeys((stage.stage, diagnostic) for stage in stages for diagnostic in stage.diagnostics)
    yield from (column(name, _diagnostic_column(diagnostic)) for name, diagnostic in found)
    yield from (column(name, part) for name in dict.fromkeys(s.stage for s in stages) for part in OF_EACH_STAGE)


def _diagnostic_column(diagnostic: str) -> Column[StageRecord]:
    return Column(diagnostic, lambda stage: stage.diagnostics.get(diagnostic))


@dataclass(frozen=True)
class _StageOfTrial:
    record: TrialRecord
    stage: StageRecord


def stages_table(run: RunRecords) -> pd.DataFrame:
    """Return one line a stage of a trial, in the order in which it ran: seconds, reuse, memory and diagnostics."""
    items = [_StageOfTrial(record, stage) for record in run.records for stage in record.stages]
    columns: tuple[Column[_StageOfTrial], ...] = (
        Column("number", lambda item: item.record.number),
        Column("trial", lambda item: item.record.trial),
        Column("seed", lambda item: item.record.seed),
        Column("stage", lambda item: item.stage.stage),
        Column("key", lambda item: item.stage.key),
        Column("complete", lambda item: item.stage.complete),
        Column("reused", lambda item: item.stage.reused),
        Column("seconds", lambda item: item.stage.seconds),
        Column("work_seconds", lambda item: item.stage.work_seconds),
        Column("spent_seconds", lambda item: item.stage.spent_seconds),
        Column("saved_seconds", lambda item: item.stage.saved_seconds),
        Column("peak_memory_bytes", lambda item: item.stage.peak_memory_bytes),
        Column("epochs", lambda item: len(item.stage.epochs)),
        Column("node", lambda item: item.stage.node),
        Column("started_at", lambda item: item.stage.started_at),
        Column("ended_at", lambda item: item.stage.ended_at),
        Column("computed_by", lambda item: item.stage.computed_by),
    )
    diagnostics = dict.fromkeys(name for item in items for name in item.stage.diagnostics)
    return tabulate(items, (*columns, *(_of_stage(f"diagnostics.{name}", name) for name in diagnostics)))


def _of_stage(name: str, diagnostic: str) -> Column[_StageOfTrial]:
    return Column(name, lambda item: item.stage.diagnostics.get(diagnostic))


@dataclass(frozen=True)
class _ClassOfTrial:
    record: TrialRecord
    split: str
    rates: Rates
    number: int


def classes_table(run: RunRecords) -> pd.DataFrame:
    """Return one line a class of a model of a trial: how many of its images are classified rightly, or as the target.

    Models are `val` and `test` (defended) and `poisoned_val`, `poisoned_test`, `clean_val` as in a record. Lines are
    missing for records of before classes were counted.
    """
    items = [item for record in run.records for item in _classes_of(record)]
    columns: tuple[Column[_ClassOfTrial], ...] = (
        Column("number", lambda item: item.record.number),
        Column("trial", lambda item: item.record.trial),
        Column("seed", lambda item: item.record.seed),
        Column("rates", lambda item: item.split),
        Column("class", lambda item: item.record.classes[item.number]),
        *(_count_column(name) for name in PerClass.model_fields),
    )
    return tabulate(items, columns)


def _count_column(name: str) -> Column[_ClassOfTrial]:
    def count(item: _ClassOfTrial) -> object:
        counts = getattr(item.rates.per_class, name)
        return None if counts is None else counts[item.number]

    return Column(name, count)


def _classes_of(record: TrialRecord) -> Iterable[_ClassOfTrial]:
    for split in ("val", "test", "poisoned_val", "poisoned_test", "clean_val"):
        rates: Rates | None = getattr(record, split)
        if rates and rates.per_class:
            yield from (_ClassOfTrial(record, split, rates, number) for number in range(len(record.classes)))


CONFIGURATION_IDENTITY: tuple[Column[Configuration], ...] = (
    Column("trial", lambda configuration: configuration.name),
    Column("seeds_done", lambda configuration: len(configuration.measured)),
    Column("seeds_tried", lambda configuration: configuration.seeds),
)
_OUTCOMES: Mapping[str, Callable[[Configuration], Outcome | None]] = {
    "val": lambda configuration: configuration.val,
    "test": lambda configuration: configuration.test,
    "poisoned_val": lambda configuration: configuration.poisoned_val,
    "poisoned_test": lambda configuration: configuration.poisoned_test,
}


def configurations_table(findings: Findings, shown: Iterable[Configuration]) -> pd.DataFrame:
    """Return one line a configuration: settings, and the rates on both splits with their intervals."""
    columns = (
        *CONFIGURATION_IDENTITY,
        Column[Configuration]("chosen", lambda configuration: configuration is findings.chosen),
        *map(_setting_column, findings.run.settings),
        *(column for split, outcome in _OUTCOMES.items() for column in _outcome_columns(split, outcome)),
    )
    return tabulate(tuple(shown), columns)


def _setting_column(path: str) -> Column[Configuration]:
    return Column(path, lambda one: as_scalar(value_at(one.config, path)))


def _outcome_columns(
    split: str, outcome: Callable[[Configuration], Outcome | None]
) -> tuple[Column[Configuration], ...]:
    def column(rate: str, part: str) -> Column[Configuration]:
        def value(configuration: Configuration) -> object:
            return getattr(getattr(outcome(configuration), rate, None), part, None)

        return Column(f"{split}_{rate}" + ("" if part == "mean" else f"_{part}"), value)

    return tuple(column(rate, part) for rate in ("asr", "ca") for part in ("mean", "low", "high"))
