"""Tables of defenses of several runs beside each other: each defense's mean over the attacks of its own run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from analysis.comparison import Comparison, compare
from analysis.formatting import listed, percent
from analysis.page import Cell, PageColumn, PageTable, table_of
from analysis.points.configurations import Outcome
from analysis.side_by_side.sides import Side
from analysis.tables import Column, tabulate


@dataclass(frozen=True)
class DefenseRow:
    """One defense in every run that compares defenses."""

    name: str
    means: tuple[Outcome | None, ...]
    """For each of these runs, on test; None where it has not the defense, or has not measured it."""


@dataclass(frozen=True)
class DefenseRows:
    """All defenses, in the order in which runs have them."""

    sides: tuple[Side, ...]
    """The runs that compare defenses."""
    tables: tuple[Comparison, ...]
    rows: tuple[DefenseRow, ...]

    @property
    def note(self) -> str:
        """Say what each run's means are over."""
        over = (
            f"{side.name}: {listed(table.victims[column] for column in table.victim.common)}"
            for side, table in zip(self.sides, self.tables, strict=True)
            if table.victim.common
        )
        return f"Means over the attacks that all defenses of a run were measured on ({'; '.join(over)}), on test."


def defense_rows(sides: Sequence[Side]) -> DefenseRows:
    """Return the defenses side by side; without rows unless two runs compare any."""
    found = [(side, table) for side in sides if side.findings.run.compared and (table := compare(side.findings))]
    if len(found) < 2:
        return DefenseRows((), (), ())
    names = dict.fromkeys(row.name for _, table in found for row in table.rows)
    by_name = [{row.name: row.mean for row in table.rows} for _, table in found]
    return DefenseRows(
        tuple(side for side, _ in found),
        tuple(table for _, table in found),
        tuple(DefenseRow(name, tuple(means.get(name) for means in by_name)) for name in names),
    )


def defenses_table(found: DefenseRows) -> pd.DataFrame:
    """Return one line for each defense of each run: `defense`, `run`, `asr`, `ca` with the ends of their intervals."""
    lines = [
        (row.name, side.name, mean)
        for row in found.rows
        for side, mean in zip(found.sides, row.means, strict=True)
        if mean
    ]

    def rate(of: str, part: str) -> Column[tuple[str, str, Outcome]]:
        ending = "" if part == "mean" else f"_{part}"
        return Column(f"{of}{ending}", lambda line: getattr(getattr(line[2], of), part, None))

    return tabulate(
        lines,
        (
            Column("defense", lambda line: line[0]),
            Column("run", lambda line: line[1]),
            *(rate(of, part) for of in ("asr", "ca") for part in ("mean", "low", "high")),
        ),
    )


def defenses_page(found: DefenseRows) -> PageTable:
    """Return every defense with both rates in each run, as the page shows them."""

    def column(rate: str, at: int, name: str) -> PageColumn[DefenseRow]:
        def cell(row: DefenseRow) -> Cell:
            estimate = getattr(row.means[at], rate, None)
            return Cell(percent(estimate.mean), estimate.mean, estimate.interval) if estimate else Cell("–")

        return PageColumn(f"{rate.upper()}, {name}", cell, kind="number")

    return table_of(
        "Defenses",
        (
            PageColumn[DefenseRow]("defense", lambda row: Cell(row.name, row.name), kind="name"),
            *(column(rate, at, side.name) for rate in ("asr", "ca") for at, side in enumerate(found.sides)),
        ),
        found.rows,
    )
