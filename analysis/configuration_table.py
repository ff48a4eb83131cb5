"""Configurations as a table: one row each, with the means over their seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pandas as pd

from analysis.findings import Findings
from analysis.replicates import Configuration, Outcome
from analysis.table import Column, as_cell, setting, tabulate

IDENTITY: tuple[Column[Configuration], ...] = (
    Column("trial", lambda configuration: configuration.name),
    Column("seeds_done", lambda configuration: len(configuration.measured)),
    Column("seeds_tried", lambda configuration: configuration.seeds),
)


def configurations_table(findings: Findings, rows: Iterable[Configuration]) -> pd.DataFrame:
    """Return one row a configuration: settings, and the rates on both splits with their intervals."""
    columns = (
        *IDENTITY,
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
