"""Trials and configurations as tables: one `Column` for each thing that is shown of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import pandas as pd
from pydantic import JsonValue

from analysis.configurations import Configuration, Outcome
from analysis.findings import Findings
from analysis.run import Run, has_path
from ubt.config import get_path
from ubt.trials.record import Rates, StageRecord, TrialRecord

Row = TypeVar("Row")


@dataclass(frozen=True)
class Column(Generic[Row]):
    """A column: its name, and how its value is read off a row."""

    name: str
    value: Callable[[Row], object]


def tabulate(rows: Sequence[Row], columns: Iterable[Column[Row]]) -> pd.DataFrame:
    """Return the table of `rows`; a value that is None becomes a missing value."""
    return pd.DataFrame({column.name: [column.value(row) for row in rows] for column in columns})


def rate_columns(split: str, rates: Callable[[TrialRecord], Rates | None]) -> tuple[Column[TrialRecord], ...]:
    """Return ASR, CA, their intervals and the accuracy on triggered images, named after the split."""

    def column(field: str) -> Column[TrialRecord]:
        return Column(f"{split}_{field}", lambda record: getattr(rates(record), field, None))

    return tuple(column(field) for field in RATE_FIELDS)


RATE_FIELDS = ("asr", "asr_low", "asr_high", "ca", "ca_low", "ca_high", "ca_top5", "triggered_accuracy")

IDENTITY: tuple[Column[TrialRecord], ...] = (
    Column("number", lambda record: record.number),
    Column("trial", lambda record: record.trial),
    Column("state", lambda record: str(record.state)),
    Column("reason", lambda record: record.reason),
    Column("seed", lambda record: record.seed),
)
OUTCOME: tuple[Column[TrialRecord], ...] = (
    *rate_columns("val", lambda record: record.val),
    *rate_columns("test", lambda record: record.test),
    *rate_columns("poisoned_val", lambda record: record.poisoned_val),
    *rate_columns("poisoned_test", lambda record: record.poisoned_test),
    Column("seconds", lambda record: record.seconds),
    Column("stages_computed", lambda record: sum(not stage.reused for stage in record.stages)),
    Column("stages_reused", lambda record: sum(stage.reused for stage in record.stages)),
    Column("attempts", lambda record: record.attempts),
    Column("started_at", lambda record: record.started_at),
    Column("device", lambda record: record.device),
    Column("commit", lambda record: record.commit),
)
OF_EACH_STAGE: tuple[Column[StageRecord], ...] = (
    Column("seconds", lambda stage: stage.seconds),
    Column("reused", lambda stage: stage.reused),
    Column("peak_memory_bytes", lambda stage: stage.peak_memory_bytes),
)


def trials_table(run: Run) -> pd.DataFrame:
    """Return one row a trial: identity, every changed setting, outcome, and `<stage>.<metric>` columns."""
    settings = map(setting_column, run.settings)
    return tabulate(run.records, (*IDENTITY, *settings, *OUTCOME, *_stage_columns(run.records)))


def setting_column(path: str) -> Column[TrialRecord]:
    """Return the column of one setting, read from the trial's whole configuration."""
    return Column(path, lambda record: as_cell(setting(record, path)))


def setting(record: TrialRecord, path: str) -> JsonValue:
    """Return the value of a setting; None where the trial's defense has no such setting."""
    return get_path(record.config, path) if has_path(record.config, path) else None


def as_cell(value: JsonValue) -> str | float | bool | None:
    """Return a JSON value as one cell: lists and objects as their JSON text."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value


def _stage_columns(records: Iterable[TrialRecord]) -> tuple[Column[TrialRecord], ...]:
    stages = [stage for record in records for stage in record.stages]
    metrics = dict.fromkeys((stage.stage, metric) for stage in stages for metric in stage.diagnostics)
    facts = [_stage_column(name, column) for name in dict.fromkeys(s.stage for s in stages) for column in OF_EACH_STAGE]
    return (*(_stage_column(name, _metric_column(metric)) for name, metric in metrics), *facts)


def _metric_column(metric: str) -> Column[StageRecord]:
    return Column(metric, lambda stage: stage.diagnostics.get(metric))


def _stage_column(name: str, column: Column[StageRecord]) -> Column[TrialRecord]:
    def value(record: TrialRecord) -> object:
        return next((column.value(stage) for stage in record.stages if stage.stage == name), None)

    return Column(f"{name}.{column.name}", value)


CONFIGURATION_IDENTITY: tuple[Column[Configuration], ...] = (
    Column("trial", lambda configuration: configuration.name),
    Column("seeds_done", lambda configuration: len(configuration.measured)),
    Column("seeds_tried", lambda configuration: configuration.seeds),
)


def configurations_table(findings: Findings, rows: Iterable[Configuration]) -> pd.DataFrame:
    """Return one row a configuration: settings, and the rates on both splits with their intervals."""
    columns = (
        *CONFIGURATION_IDENTITY,
        Column[Configuration]("chosen", lambda configuration: configuration is findings.chosen),
        *map(_setting_column, findings.run.settings),
        *_outcome_columns("val", lambda configuration: configuration.val),
        *_outcome_columns("test", lambda configuration: configuration.test),
        *_outcome_columns("poisoned_val", lambda configuration: configuration.poisoned_val),
        *_outcome_columns("poisoned_test", lambda configuration: configuration.poisoned_test),
    )
    return tabulate(tuple(rows), columns)


def _setting_column(path: str) -> Column[Configuration]:
    return Column(path, lambda configuration: as_cell(setting(configuration.first, path)))


def _outcome_columns(
    split: str, outcome: Callable[[Configuration], Outcome | None]
) -> tuple[Column[Configuration], ...]:
    def column(rate: str, part: str) -> Column[Configuration]:
        def value(configuration: Configuration) -> object:
            return getattr(getattr(outcome(configuration), rate, None), part, None)

        return Column(f"{split}_{rate}" + ("" if part == "mean" else f"_{part}"), value)

    return tuple(column(rate, part) for rate in ("asr", "ca") for part in ("mean", "low", "high"))
