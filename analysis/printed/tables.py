"""What `ubt table` prints: a run's table by its kind, with what it takes to print it elsewhere.

A comparison has its defenses over attacks, an ablation its effects, a search its front.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from analysis.comparison import compare, comparison_table
from analysis.comparison.compare import Comparison, Row
from analysis.comparison.output import best_rows, heads
from analysis.comparison.output import notes as comparison_notes
from analysis.effects import Effects, find_effects
from analysis.effects.output import effects_table, p_text
from analysis.effects.output import notes as effects_notes
from analysis.findings import Findings
from analysis.formatting import changes_text, count, points
from analysis.front.tables import members_table
from analysis.points.configurations import Configuration, Outcome
from ubt.common.errors import Problem, UserError

Kind = Literal["comparison", "effects", "front"]


@dataclass(frozen=True)
class Number:
    """A rate or a difference of rates, in percent or points, with the ends of its 95 % interval."""

    mean: float
    low: float
    high: float
    best: bool = False
    """Whether it is set off: the best of its column, or a clear effect."""


Cell = Number | str | None


@dataclass(frozen=True)
class PrintedTable:
    """A table without any notation: LaTeX and Markdown are made of it."""

    kind: Kind
    columns: tuple[tuple[str, bool], ...]
    """What each is called, and whether it holds numbers."""
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...]
    csv: str
    """The same, with more digits and columns."""
    signed: bool = False
    """Numbers are differences, printed with their sign."""


def printed_table(findings: Findings, kind: Kind | None = None) -> PrintedTable:
    """Return a run's table: the one that is asked for, or that of the run's kind.

    Raises:
        UserError: if the run has no such table.
    """
    comparison, effects = compare(findings), find_effects(findings)
    kind = kind or ("comparison" if comparison else "effects" if effects and findings.run.ablation else "front")
    if kind == "comparison" and comparison:
        return _comparison(comparison)
    if kind == "effects" and effects:
        return _effects(effects)
    if kind == "front" and findings.front:
        return _front(findings)
    raise UserError(Problem(str(findings.run.folder), _MISSING[kind], advice=_ADVICE[kind]))


_MISSING: dict[Kind, str] = {
    "comparison": "has trials of a single defense, and so no comparison",
    "effects": "holds no two configurations that differ in one thing",
    "front": "has no front: no trial was measured under a known attack, or its victims differ",
}
_ADVICE: dict[Kind, str] = {
    "comparison": "`ubt sweep table` compares several; `--of front` prints what a run of one has",
    "effects": "`leave_one_out`, `ofat`, `pairs` and a grid hold effects; a search by results and a comparison do not",
    "front": "`ubt report` shows what the run has",
}


def _percent(outcome: Outcome | None, rate: str, best: bool = False) -> Cell:
    estimate = getattr(outcome, rate, None)
    return Number(100 * estimate.mean, 100 * estimate.low, 100 * estimate.high, best) if estimate else None


def _comparison(comparison: Comparison) -> PrintedTable:
    titles = heads(comparison)

    def cells(row: Row) -> Iterable[Cell]:
        outcomes = [result.outcome for result in row.results]
        bests = [row in best_rows(comparison, at) for at in range(len(outcomes))]
        both = (*zip(outcomes, bests, strict=True), (row.mean, row in best_rows(comparison, None)), (row.worst, False))
        for outcome, best in both[: len(titles)]:
            yield from (_percent(outcome, "asr", best), _percent(outcome, "ca"))

    columns = [(f"{title} {rate}", True) for title in titles for rate in ("ASR", "CA")]
    return PrintedTable(
        kind="comparison",
        columns=(("defense", False), *columns),
        rows=tuple((row.name, *cells(row)) for row in comparison.rows),
        notes=(
            "Attack success rate (ASR) and clean accuracy (CA) in percent on the test split: means over seeds, with "
            f"95% intervals. Set off: the lowest ASR of those that lose at most {points(comparison.ca_floor)} of CA.",
            *comparison_notes(comparison),
        ),
        csv=comparison_table(comparison).to_csv(index=False),
    )


def _effects(effects: Effects) -> PrintedTable:
    chain = effects.chain

    def rates() -> Iterable[tuple[str, bool]]:
        for rate in ("ASR", "CA"):
            yield from ((rate, True), (f"p of {rate}", False))

    rows = []
    for effect in effects.effects:
        cells: list[Cell] = [effect.contrast.name]
        for rate in (effect.asr, effect.ca):
            number = Number(100 * rate.mean, 100 * rate.low, 100 * rate.high, rate.significant) if rate else None
            cells += [number, p_text(rate.p_holm if rate else None)]
        for name in chain:
            metric = effect.chain.get(name)
            cells.append("–" if metric is None or metric.mean is None else f"{metric.mean:.2f}")
        rows.append((*cells, str(len(effect.seeds))))
    return PrintedTable(
        kind="effects",
        columns=(("change", False), *rates(), *((name, False) for name in chain), ("seeds", False)),
        rows=tuple(rows),
        notes=effects_notes(effects),
        csv=effects_table(effects).to_csv(index=False),
        signed=True,
    )


def _front(findings: Findings) -> PrintedTable:
    rates: tuple[tuple[str, Callable[[Configuration], Cell]], ...] = (
        ("ASR", lambda one: _percent(one.test, "asr", one is findings.chosen)),
        ("CA", lambda one: _percent(one.test, "ca")),
        ("validation ASR", lambda one: _percent(one.val, "asr")),
        ("validation CA", lambda one: _percent(one.val, "ca")),
    )
    rows = tuple(
        (one.title, ", ".join(changes_text(one.changes, findings.run.setting_names)), *(rate(one) for _, rate in rates))
        for one in findings.front
    )
    seeds = max(len(one.measured) for one in findings.front)
    means = f"means over {count(seeds, 'seed')}, " if seeds > 1 else ""
    notes = [
        "The configurations that no other one beats in both rates on validation; ASR and CA in percent on the test "
        f"split, {means}with 95% intervals."
    ]
    notes += ["Set off: the chosen one."] if findings.chosen in findings.front else []
    return PrintedTable(
        kind="front",
        columns=(("trial", False), ("changes", False), *((title, True) for title, _ in rates)),
        rows=rows,
        notes=tuple(notes),
        csv=members_table(findings).to_csv(index=False),
    )


def width_of(table: PrintedTable, column: int) -> int:
    """Return the most digits before the decimal point of a column of numbers."""
    found = [cell.mean for row in table.rows if isinstance(cell := row[column], Number)]
    return max((len(f"{abs(mean):.0f}") for mean in found), default=1)


def cells_of(row: Sequence[Cell], text: Callable[[str], str], number: Callable[[Number], str]) -> list[str]:
    """Return the cells of a row as text."""
    return ["–" if cell is None else number(cell) if isinstance(cell, Number) else text(cell) for cell in row]
