"""The chosen configuration class by class, as the report's page shows it: what the rates over all classes hide."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from analysis.details.detail import MOST_CLASSES
from analysis.findings import Findings
from analysis.formatting import percent, signed
from analysis.page import Cell, PageColumn, PageTable, table_of
from ubt.trials.rates import PerClass, Rates
from ubt.trials.record import TrialRecord


@dataclass(frozen=True)
class _Class:
    """Images of one class on the test split, over all seeds, by the poisoned and by the defended model."""

    name: str
    asr_before: float | None
    asr: float | None
    """None of the target, whose images cannot be taken for it wrongly."""
    ca_before: float | None
    ca: float | None
    images: int


def class_table(findings: Findings) -> PageTable:
    """Return a row for each class of the chosen configuration; none where classes were not counted, or are too many.

    Nor where it is judged at an epoch before its end, of which the test split is not known.
    """
    chosen = findings.chosen
    trials = chosen.measured if chosen and not chosen.at else ()
    classes = trials[0].classes if trials else ()
    after, before = (_counts(trials, split) for split in (lambda one: one.test, lambda one: one.poisoned_test))
    known = 0 < len(classes) <= MOST_CLASSES and bool(after)
    found = [_class(name, at, before, after) for at, name in enumerate(classes)] if known else []
    attacked = any(one.asr is not None for one in found)
    columns: list[PageColumn[_Class]] = [PageColumn("class", lambda one: Cell(one.name, one.name), kind="name")]
    if attacked:
        columns += [
            PageColumn("ASR, poisoned", lambda one: _rate(one.asr_before), kind="number"),
            PageColumn("ASR, defended", lambda one: _rate(one.asr), kind="number"),
        ]
    columns += [
        PageColumn("CA, poisoned", lambda one: _rate(one.ca_before), kind="number"),
        PageColumn("CA, defended", lambda one: _rate(one.ca), kind="number"),
        PageColumn("change of CA", _change, kind="number", hint="in points"),
        PageColumn("images", lambda one: Cell(f"{one.images:,}", one.images), kind="number"),
    ]
    return table_of("The chosen configuration by class", tuple(columns), found)


def _counts(trials: Sequence[TrialRecord], rates: Callable[[TrialRecord], Rates | None]) -> list[PerClass]:
    found = [one.per_class for trial in trials if (one := rates(trial)) and one.per_class]
    return found if len(found) == len(trials) else []


def _class(name: str, at: int, before: Sequence[PerClass], after: Sequence[PerClass]) -> _Class:
    return _Class(
        name=name,
        asr_before=_share([(one.hits, one.triggered) for one in before], at),
        asr=_share([(one.hits, one.triggered) for one in after], at),
        ca_before=_share([(one.correct, one.images) for one in before], at),
        ca=_share([(one.correct, one.images) for one in after], at),
        images=sum(one.images[at] for one in after),
    )


def _share(counts: Sequence[tuple[Sequence[int] | None, Sequence[int] | None]], at: int) -> float | None:
    known = [(part[at], whole[at]) for part, whole in counts if part is not None and whole is not None]
    images = sum(whole for _, whole in known)
    return sum(part for part, _ in known) / images if images else None


def _rate(rate: float | None) -> Cell:
    return Cell("–") if rate is None else Cell(percent(rate), rate)


def _change(one: _Class) -> Cell:
    if one.ca is None or one.ca_before is None:
        return Cell("–")
    change = one.ca - one.ca_before
    return Cell(signed(change), 100 * change)
