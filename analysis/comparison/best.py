"""The method against the best baseline: the paper's headline, as numbers and in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from analysis.comparison.model import Comparison, Row
from analysis.replicates import Outcome
from analysis.wording import count, listed, percent, points
from ubt.metrics import keeps_accuracy


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
