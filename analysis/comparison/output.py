"""The comparison in words, as tables, and as the report shows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from analysis.comparison.model import Cell, Comparison, Row
from analysis.configurations import Outcome
from analysis.formatting import count, interval, listed, percent, points
from analysis.tables import Column, tabulate
from ubt.common.choice import keeps_accuracy
from ubt.common.formatting import duration


@dataclass(frozen=True)
class Rival:
    """A baseline, and how far the method is ahead of it: fractions, below 0 where it is behind."""

    name: str
    rates: Outcome
    asr_lower: float
    ca_higher: float


@dataclass(frozen=True)
class Contest:
    """The method on average over victims, and the baselines of lowest ASR."""

    method: str
    rates: Outcome
    best: Rival
    best_kept: Rival | None
    """Of the baselines that keep clean accuracy within the floor; None if none does."""


def contest(comparison: Comparison) -> Contest | None:
    """Return how the method fares; None if it, or every baseline, is missing or not measured."""
    method = comparison.method
    if method is None or method.mean is None:
        return None
    baselines = [row for row in comparison.rows if row.is_baseline]
    best = _rival(method.mean, baselines)
    kept = _rival(method.mean, [row for row in baselines if is_kept(row.mean, comparison)])
    return Contest(method.name, method.mean, best, kept) if best else None


def is_kept(rates: Outcome | None, comparison: Comparison, column: int | None = None) -> bool:
    """Tell whether a defense loses at most the floor of the victim's CA, on average or in one column."""
    victim = comparison.victim.mean if column is None else comparison.victim.cells[column].outcome
    return bool(rates and victim and keeps_accuracy(victim.ca.mean - rates.ca.mean, comparison.ca_floor))


def _rival(method: Outcome, rows: Sequence[Row]) -> Rival | None:
    """Return the row of lowest mean ASR; ties go to the higher CA, then to the earlier row."""
    measured = [(row.name, row.mean) for row in rows if row.mean]
    if not measured:
        return None
    name, rates = min(measured, key=lambda pair: (pair[1].asr.mean, -pair[1].ca.mean))
    return Rival(name, rates, rates.asr.mean - method.asr.mean, method.ca.mean - rates.ca.mean)


def contest_text(comparison: Comparison) -> str:
    """Say in one or two sentences how the method fares; "" if there is nothing to hold it against."""
    found = contest(comparison)
    if found is None:
        return ""
    attacks = len(comparison.victim.common)
    over = f"On average over {count(attacks, 'attack')}" if attacks > 1 else "On the one attack"
    asr, ca = percent(found.rates.asr.mean), percent(found.rates.ca.mean)
    text = f"{over}, {found.method} leaves ASR {asr} at CA {ca}; the best baseline, {_told(found.best)}."
    kept = found.best_kept
    if kept is None:
        return f"{text} No baseline keeps clean accuracy within {points(comparison.ca_floor)}."
    if kept.name == found.best.name:
        return text
    return f"{text} The best that keeps clean accuracy within {points(comparison.ca_floor)} is {_told(kept)}."


def _told(rival: Rival) -> str:
    return (
        f"{rival.name}, ASR {percent(rival.rates.asr.mean)} at CA {percent(rival.rates.ca.mean)} "
        f"({_ahead(rival.asr_lower, 'ASR', 'lower', 'higher')}, {_ahead(rival.ca_higher, 'CA', 'higher', 'lower')})"
    )


def _ahead(difference: float, rate: str, better: str, worse: str) -> str:
    size = f"{100 * abs(difference):.2f}"
    return f"{rate} {size} points {better if difference >= 0 else worse}" if float(size) else f"the same {rate}"


def notes(comparison: Comparison) -> tuple[str, ...]:
    """Return what a reader of the table has to know, one sentence each."""
    searched = [row for row in comparison.rows if row.choices > 1 and row.mean and not row.note]
    left_out = [name for column, name in enumerate(comparison.victims) if column not in comparison.victim.common]
    told = []
    if comparison.weak:
        failed = listed(f"{name} ({listed(f'seed {seed}' for seed in seeds)})" for name, seeds in comparison.weak)
        told.append(f"The backdoor did not take, and so nothing was defended: {failed}.")
    told += [f"{row.name}: {row.note}." for row in comparison.rows if row.note]
    if left_out:
        told.append(f"Means and worst cases leave out {listed(left_out)}: not every defense was measured there.")
    if searched:
        counts = listed(f"{row.name} ({row.choices})" for row in searched)
        told.append(f"Settings were chosen on the validation split, from as many as in brackets: {counts}.")
    return tuple(told)


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


@dataclass(frozen=True)
class ShownCell:
    """One defense on one attack, or over all of them."""

    outcome: Outcome | None
    best: bool = False
    """The lowest ASR of its column, of the defenses that keep clean accuracy."""
    remark: str = ""


@dataclass(frozen=True)
class ShownRow:
    """One defense."""

    name: str
    is_method: bool
    cells: tuple[ShownCell, ...]
    seconds: float
    time: str


@dataclass(frozen=True)
class ShownComparison:
    """The table, and what it says in words."""

    lede: str
    columns: tuple[str, ...]
    rows: tuple[ShownRow, ...]
    notes: tuple[str, ...]


def shown(comparison: Comparison) -> ShownComparison:
    """Return a comparison as the template takes it."""
    return ShownComparison(
        lede=contest_text(comparison),
        columns=heads(comparison),
        rows=tuple(_row(row, comparison) for row in comparison.rows),
        notes=notes(comparison),
    )


def _row(row: Row, comparison: Comparison) -> ShownRow:
    each = (
        ShownCell(
            cell.outcome,
            best=row in best_rows(comparison, column),
            remark=f"{cell.seeds} of {cell.tried} seeds" if 0 < cell.seeds < cell.tried else "",
        )
        for column, cell in enumerate(row.cells)
    )
    overall = (ShownCell(row.mean, best=row in best_rows(comparison, None)), ShownCell(row.worst))
    cells = (*each, *overall)[: len(heads(comparison))]
    return ShownRow(row.name, row is comparison.method, cells, row.seconds or 0.0, seconds_text(row.seconds))
