"""The comparison as tables: tidy for programs, and Markdown for papers and READMEs."""

from __future__ import annotations

import pandas as pd

from analysis.comparison.best import contest_text, is_kept, notes
from analysis.comparison.model import Cell, Comparison, Row
from analysis.replicates import Outcome
from analysis.table import Column, tabulate
from analysis.wording import duration, interval

MEAN, WORST = "mean over attacks", "worst attack"


def comparison_table(comparison: Comparison) -> pd.DataFrame:
    """Return one row for each defense on each attack, and two more a defense: its mean and its worst case.

    Rates are fractions in [0, 1] on the test split, with the ends of their 95 % intervals.
    """
    rows: list[tuple[Row, str, Outcome | None, Cell | None]] = []
    for row in comparison.rows:
        rows += [(row, name, cell.outcome, cell) for name, cell in zip(comparison.victims, row.cells, strict=True)]
        rows += [(row, MEAN, row.mean, None), (row, WORST, row.worst, None)]
    return tabulate(
        rows,
        (
            Column("defense", lambda line: line[0].name),
            Column("attack", lambda line: line[1]),
            *(_rate_column(rate, part) for rate in ("asr", "ca") for part in ("mean", "low", "high")),
            Column("seconds", lambda line: line[3].seconds if line[3] else line[0].seconds),
            Column("seeds_done", lambda line: line[3].seeds if line[3] else None),
            Column("seeds_tried", lambda line: line[3].tried if line[3] else None),
        ),
    )


def _rate_column(rate: str, part: str) -> Column[tuple[Row, str, Outcome | None, Cell | None]]:
    name = rate if part == "mean" else f"{rate}_{part}"
    return Column(name, lambda line: getattr(getattr(line[2], rate, None), part, None))


def comparison_markdown(comparison: Comparison) -> str:
    """Return the table in Markdown, `ASR / CA` in percent with intervals, and below it what it says.

    In bold: of each column, the lowest ASR of the defenses that keep clean accuracy.
    """
    names = ("defense", *heads(comparison), "time")
    lines = [names, ("---",) + ("---:",) * (len(names) - 1)]
    lines += [_markdown_row(row, comparison) for row in comparison.rows]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    remarks = [READING, *filter(None, (contest_text(comparison), *notes(comparison)))]
    return "\n\n".join((table, *remarks)) + "\n"


def heads(comparison: Comparison) -> tuple[str, ...]:
    """Return the columns of rates: the attacks and, of several, their mean and the worst of them."""
    return (*comparison.victims, *((MEAN, WORST) if len(comparison.victims) > 1 else ()))


READING = (
    "ASR / CA in percent on the test split, means over seeds, with 95% intervals; time is that of a defense's own work."
)


def _markdown_row(row: Row, comparison: Comparison) -> tuple[str, ...]:
    each = (
        _markdown_cell(cell.outcome, best=row in best_rows(comparison, column)) + _seeds(cell)
        for column, cell in enumerate(row.cells)
    )
    overall = (_markdown_cell(row.mean, best=row in best_rows(comparison, None)), _markdown_cell(row.worst))
    return (row.name, *(*each, *overall)[: len(heads(comparison))], seconds_text(row.seconds))


def best_rows(comparison: Comparison, column: int | None) -> tuple[Row, ...]:
    """Return the defenses of lowest ASR in a column (None: on average) of those that keep clean accuracy."""

    def outcome(row: Row) -> Outcome | None:
        return row.mean if column is None else row.cells[column].outcome

    able = [
        (row, rates)
        for row in comparison.rows
        if row.is_defense and (rates := outcome(row)) and is_kept(rates, comparison, column)
    ]
    lowest = min((rates.asr.mean for _, rates in able), default=0.0)
    return tuple(row for row, rates in able if rates.asr.mean == lowest)


def _markdown_cell(outcome: Outcome | None, best: bool = False) -> str:
    if outcome is None:
        return "–"
    asr, ca = f"{100 * outcome.asr.mean:.1f}", f"{100 * outcome.ca.mean:.1f}"
    return f"{f'**{asr}**' if best else asr} ({interval(outcome.asr)}) / {ca} ({interval(outcome.ca)})"


def _seeds(cell: Cell) -> str:
    return f" [{cell.seeds} of {cell.tried} seeds]" if 0 < cell.seeds < cell.tried else ""


def seconds_text(seconds: float | None) -> str:
    """Return what a defense takes, `–` for none at all."""
    return duration(seconds) if seconds else "–"
