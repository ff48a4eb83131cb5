"""The comparison in words, as tables, and as the report shows it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd

from analysis.comparison.compare import AttackResult, Comparison, Row
from analysis.formatting import count, listed, percent, points
from analysis.points.configurations import Estimate, Outcome
from analysis.tables import Column, tabulate
from ubt.common.choice import Candidate, choose, keeps_accuracy
from ubt.common.formatting import duration


@dataclass(frozen=True)
class Rival:
    """A baseline, and how far the method is ahead of it: fractions, below 0 where it is behind."""

    name: str
    asr: float
    ca: float
    asr_lower: float
    ca_higher: float
    asr_clear: bool = True
    """Whether the two intervals leave space between them."""
    ca_clear: bool = True


@dataclass(frozen=True)
class Contest:
    """The method on average over victims, and the baselines of lowest ASR."""

    method: str
    asr: float
    ca: float
    best: Rival
    best_kept: Rival | None
    """Of the baselines that keep clean accuracy within the floor; None if none does."""


def contest(comparison: Comparison) -> Contest | None:
    """Return how the method fares; None if it, or every baseline, is missing or not measured under a known attack."""
    method = comparison.method
    if method is None or method.mean is None or method.mean.point is None:
        return None
    best = _rival(method.mean.point, comparison, math.inf)
    kept = _rival(method.mean.point, comparison, comparison.ca_floor)
    return Contest(method.name, *method.mean.point, best, kept) if best else None


def is_kept(rates: Outcome | None, comparison: Comparison, column: int | None = None) -> bool:
    """Return whether a defense loses at most the floor of the victim's CA, on average or in one column."""
    victim = comparison.victim.mean if column is None else comparison.victim.results[column].outcome
    return bool(rates and victim and keeps_accuracy(victim.ca.mean - rates.ca.mean, comparison.ca_floor))


def _rival(method: tuple[float, float], comparison: Comparison, ca_floor: float) -> Rival | None:
    """Return the baseline of lowest mean ASR that keeps CA within the floor, against the method's (ASR, CA)."""
    victim = comparison.victim.mean
    measured = [(row, row.mean.point) for row in comparison.rows if row.is_baseline and row.mean]
    baselines = [(row, *point) for row, point in measured if point]
    candidates = [
        Candidate(asr, ca, victim.ca.mean - ca if victim else math.inf, order)
        for order, (_, asr, ca) in enumerate(baselines)
    ]
    chosen = choose(candidates, ca_floor)
    if chosen is None:
        return None
    row, asr, ca = baselines[chosen.order]
    ours = comparison.method.mean if comparison.method else None
    asr_clear, ca_clear = (_apart(getattr(ours, rate, None), getattr(row.mean, rate, None)) for rate in ("asr", "ca"))
    return Rival(row.name, asr, ca, asr - method[0], method[1] - ca, asr_clear, ca_clear)


def _apart(one: Estimate | None, other: Estimate | None) -> bool:
    """Return whether two intervals have nothing in common."""
    return one is not None and other is not None and (one.high < other.low or other.high < one.low)


def contest_text(comparison: Comparison) -> str:
    """Say in one or two sentences how the method fares; "" if there is no baseline to compare it with."""
    found = contest(comparison)
    if found is None:
        return ""
    attacks = len(comparison.victim.common)
    over = f"On average over {count(attacks, 'attack')}" if attacks > 1 else "On the one attack"
    asr, ca, best = percent(found.asr), percent(found.ca), _rival_text(found.best)
    text = f"{over}, {found.method} leaves ASR {asr} at CA {ca}; the best baseline, {best}."
    kept = found.best_kept
    if kept is None:
        return f"{text} No baseline keeps clean accuracy within {points(comparison.ca_floor)}."
    if kept.name == found.best.name:
        return text
    return f"{text} The best that keeps clean accuracy within {points(comparison.ca_floor)} is {_rival_text(kept)}."


def _rival_text(rival: Rival) -> str:
    asr = _ahead(rival.asr_lower, "ASR", ("lower", "higher"), rival.asr_clear)
    ca = _ahead(rival.ca_higher, "CA", ("higher", "lower"), rival.ca_clear)
    return f"{rival.name}, ASR {percent(rival.asr)} at CA {percent(rival.ca)} ({asr}, {ca})"


def _ahead(difference: float, rate: str, words: tuple[str, str], clear: bool) -> str:
    size = f"{100 * abs(difference):.2f}"
    if not float(size):
        return f"the same {rate}"
    return f"{rate} {size} points {words[difference < 0]}" + ("" if clear else ", within overlapping intervals")


def notes(comparison: Comparison) -> tuple[str, ...]:
    """Return what a reader of the table has to know, one sentence each."""
    searched = [row for row in comparison.rows if row.choices > 1 and row.mean and not row.note]
    left_out = [name for column, name in enumerate(comparison.victims) if column not in comparison.victim.common]
    found = []
    if comparison.weak:
        failed = listed(f"{name} ({listed(f'seed {seed}' for seed in seeds)})" for name, seeds in comparison.weak)
        found.append(f"The backdoor did not take, and so nothing was defended: {failed}.")
    found += [f"A gate stopped trials of {name}: {reason}." for name, reason in comparison.stopped]
    found += [f"{row.name}: {row.note}." for row in comparison.rows if row.note]
    if left_out:
        found.append(f"Means and worst cases leave out {listed(left_out)}: not every defense was measured there.")
    if comparison.unseen:
        names = listed(comparison.victims[column] for column in comparison.unseen)
        found.append(f"Unseen: the settings of no defense were chosen on {names}.")
    if searched:
        counts = listed(f"{row.name} ({row.choices})" for row in searched)
        found.append(f"Settings were chosen on the validation split, from as many as in brackets: {counts}.")
    return tuple(found)


MEAN, WORST = "mean over attacks", "worst attack"
UNSEEN = "unseen"


def comparison_table(comparison: Comparison) -> pd.DataFrame:
    """Return one row for each defense on each attack, and two more a defense: its mean and its worst case.

    Rates are fractions in [0, 1] on the test split, with the ends of their 95 % intervals.
    """
    lines: list[_Line] = []
    for row in comparison.rows:
        lines += [
            _Line(row, name, of.outcome, of, column in comparison.unseen)
            for column, (name, of) in enumerate(zip(comparison.victims, row.results, strict=True))
        ]
        lines += [_Line(row, MEAN, row.mean), _Line(row, WORST, row.worst)]
    return tabulate(
        lines,
        (
            Column("defense", lambda line: line.row.name),
            Column("attack", lambda line: line.attack),
            *(_rate_column(rate, part) for rate in ("asr", "ca") for part in ("mean", "low", "high")),
            Column("seconds", lambda line: line.result.seconds if line.result else line.row.seconds),
            Column("seeds_done", lambda line: line.result.seeds if line.result else None),
            Column("seeds_tried", lambda line: line.result.tried if line.result else None),
            Column("unseen", lambda line: line.unseen),
        ),
    )


@dataclass(frozen=True)
class _Line:
    row: Row
    attack: str
    outcome: Outcome | None
    result: AttackResult | None = None
    unseen: bool | None = None
    """Whether no settings were chosen on the attack; None of means and worst cases."""


def _rate_column(rate: str, part: str) -> Column[_Line]:
    name = rate if part == "mean" else f"{rate}_{part}"
    return Column(name, lambda line: getattr(getattr(line.outcome, rate, None), part, None))


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
    names = (
        f"{name} ({UNSEEN})" if column in comparison.unseen else name for column, name in enumerate(comparison.victims)
    )
    return (*names, *((MEAN, WORST) if len(comparison.victims) > 1 else ()))


READING = (
    "ASR / CA in percent on the test split, means over seeds, with 95% intervals; time is that of a defense's own work."
)


def _markdown_row(row: Row, comparison: Comparison) -> tuple[str, ...]:
    each = (
        _markdown_rates(of.outcome, best=row in best_rows(comparison, column)) + _seeds(of)
        for column, of in enumerate(row.results)
    )
    overall = (_markdown_rates(row.mean, best=row in best_rows(comparison, None)), _markdown_rates(row.worst))
    return (row.name, *(*each, *overall)[: len(heads(comparison))], seconds_text(row.seconds))


def best_rows(comparison: Comparison, column: int | None) -> tuple[Row, ...]:
    """Return the defenses of lowest ASR in a column (None: on average) of those that keep clean accuracy.

    None, where no attack is known.
    """

    def outcome(row: Row) -> Outcome | None:
        return row.mean if column is None else row.results[column].outcome

    able = [
        (row, rates.asr.mean)
        for row in comparison.rows
        if row.is_defense and (rates := outcome(row)) and rates.asr and is_kept(rates, comparison, column)
    ]
    lowest = min((asr for _, asr in able), default=0.0)
    return tuple(row for row, asr in able if asr == lowest)


def _markdown_rates(outcome: Outcome | None, best: bool = False) -> str:
    if outcome is None:
        return "–"
    asr, ca = (f"{100 * rate.mean:.1f}" if rate else "–" for rate in (outcome.asr, outcome.ca))
    interval = f" ({outcome.asr.interval})" if outcome.asr else ""
    return f"{f'**{asr}**' if best else asr}{interval} / {ca} ({outcome.ca.interval})"


def _seeds(of: AttackResult) -> str:
    return f" [{of.seeds} of {of.tried} seeds]" if 0 < of.seeds < of.tried else ""


def seconds_text(seconds: float | None) -> str:
    """Return what a defense takes, `–` for none at all."""
    return duration(seconds) if seconds else "–"


@dataclass(frozen=True)
class RatesView:
    """What the page shows of one defense on one attack, or over all of them."""

    outcome: Outcome | None
    best: bool = False
    """The lowest ASR of its column, of the defenses that keep clean accuracy."""
    remark: str = ""


@dataclass(frozen=True)
class RowView:
    """What the page shows of one defense."""

    name: str
    is_method: bool
    rates: tuple[RatesView, ...]
    seconds: float
    time: str


@dataclass(frozen=True)
class ComparisonView:
    """The table as the page's template takes it, and what it says in words."""

    lede: str
    columns: tuple[str, ...]
    rows: tuple[RowView, ...]
    notes: tuple[str, ...]


def comparison_view(comparison: Comparison) -> ComparisonView:
    """Return a comparison as the page's template takes it."""
    return ComparisonView(
        lede=contest_text(comparison),
        columns=heads(comparison),
        rows=tuple(_row_view(row, comparison) for row in comparison.rows),
        notes=notes(comparison),
    )


def _row_view(row: Row, comparison: Comparison) -> RowView:
    each = (
        RatesView(of.outcome, best=row in best_rows(comparison, column), remark=_seeds(of).strip(" []"))
        for column, of in enumerate(row.results)
    )
    overall = (RatesView(row.mean, best=row in best_rows(comparison, None)), RatesView(row.worst))
    rates = (*each, *overall)[: len(heads(comparison))]
    return RowView(row.name, row is comparison.method, rates, row.seconds or 0.0, seconds_text(row.seconds))
