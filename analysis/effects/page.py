"""Effects as the report's page shows them: the opening of an ablation study, and its tables, cell by cell."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from analysis.effects.estimates import Difference, Effect, Effects
from analysis.effects.importance import Importance, Importances, RateImportance
from analysis.effects.output import (
    SPLITS,
    chain_text,
    clear_effects,
    importance_notes,
    interval,
    notes,
    p_text,
    pairs_text,
    rates_text,
    same_pairs,
)
from analysis.findings import Findings
from analysis.formatting import count, listed, percent, signed
from analysis.opening.words import Change, Opening, compared, states_text, time_text
from analysis.page import Cell, PageColumn, PageTable, estimate_cell, table_of
from analysis.points.configurations import Configuration
from analysis.summary import Summary

NAMED = 3
"""At most so many effects are named in the title."""
SHOWN = 30
"""At most so many interactions are on the page: two settings of ten values each have 81."""


@dataclass(frozen=True)
class EffectsView:
    """The section as the page's template takes it; tables without rows are left out."""

    notes: tuple[str, ...]
    effects: PageTable
    interactions: PageTable
    all_interactions: int
    """How many there are; the page has the largest."""
    importances: PageTable
    importance_notes: tuple[str, ...]


def effects_view(effects: Effects, importances: Importances, base: Configuration | None = None) -> EffectsView | None:
    """Return what the page shows of effects and importances; None if there is neither.

    `base` is what all changes of an ablation are held against: the table begins with it.
    """
    if not effects and not importances:
        return None
    table = table_of("Effects", _columns(effects, "change"), effects.effects)
    if base and table.rows:
        table = replace(table, rows=(_base_row(effects, table, base), *table.rows))
    return EffectsView(
        notes=(*notes(effects)[:1], *((_BASE_NOTE,) if base and table.rows else ()), *notes(effects)[1:]),
        effects=table,
        interactions=table_of("Interactions", _columns(effects, "two changes"), _largest(effects.interactions)),
        all_interactions=len(effects.interactions),
        importances=table_of("Importance of each knob", _IMPORTANCE, importances.knobs),
        importance_notes=importance_notes(importances),
    )


_BASE_NOTE = "The first row is the base itself: its rates, and what its stages show."


def _base_row(effects: Effects, table: PageTable, base: Configuration) -> tuple[Cell, ...]:
    """Return the base as the first row: rates, no differences, so it has no place among them when they are sorted."""
    outcome = base.test if effects.split == "test" else base.val
    first = effects.effects[0].chain

    def cell(title: str) -> Cell:
        if title == "change":
            return Cell("nothing", remark=base.title, tag="base")
        if title in {"ASR", "CA"}:
            return replace(estimate_cell(outcome, title.lower()), order="")
        metric = first.get(title)
        if metric is None or metric.mean is None or metric.difference is None:
            return Cell("–")
        return Cell(f"{metric.mean - metric.difference:.2f}")

    return tuple(cell(column.title) for column in table.columns)


def _largest(found: Sequence[Effect]) -> Sequence[Effect]:
    """Return the interactions to show: all in their order, or the largest first if there are many."""
    if len(found) <= SHOWN:
        return found
    size = {id(one): max((abs(rate.mean) for rate in (one.asr, one.ca) if rate), default=0.0) for one in found}
    return sorted(found, key=lambda one: -size[id(one)])[:SHOWN]


def _columns(effects: Effects, title: str) -> tuple[PageColumn[Effect], ...]:
    rates: dict[str, Callable[[Effect], Difference | None]] = {"ASR": lambda e: e.asr, "CA": lambda e: e.ca}
    known = {name: [found for e in effects.effects if (found := rate(e))] for name, rate in rates.items()}
    return (
        PageColumn(title, lambda effect: Cell(effect.contrast.name, effect.contrast.name), kind="name"),
        *(
            column
            for name, rate in rates.items()
            if known[name]
            for column in _rate_columns(name, rate, tested=any(found.p is not None for found in known[name]))
        ),
        *(_chain_column(name) for name in effects.chain if title == "change"),
        *(() if same_pairs(effects) else (PageColumn("pairs", _pairs, kind="number", hint=_PAIRS_HINT),)),
    )


_PAIRS_HINT = "seeds that both sides were measured under, and in how many settings of the rest"


def _rate_columns(
    name: str, rate: Callable[[Effect], Difference | None], tested: bool
) -> tuple[PageColumn[Effect], ...]:
    def difference(effect: Effect) -> Cell:
        found = rate(effect)
        return Cell(signed(found.mean), found.mean, interval(found)) if found else Cell("–")

    def p(effect: Effect) -> Cell:
        found = rate(effect)
        if found is None or found.p_holm is None:
            return Cell("–")
        return Cell(p_text(found.p_holm), found.p_holm, tag="clear" if found.significant else "")

    hint = f"of no effect on {name}, corrected for the number of effects (Holm)"
    return (
        PageColumn(name, difference, kind="number", hint=f"difference of {name} in points, with its 95% interval"),
        *((PageColumn("p", p, kind="number", hint=hint),) if tested else ()),
    )


_CHAIN_HINTS = {
    "recall": "share of the poison that is suspected, and how the change moves it",
    "AUROC": "how well the overfitted model tells poison from other suspects, and how the change moves it",
    "purity": "share of the selected pairs that is poison, and how the change moves it",
    "tokens": "share of relevance on the target’s name in poisoned captions, and how the change moves it",
}


def _chain_column(name: str) -> PageColumn[Effect]:
    def cell(effect: Effect) -> Cell:
        metric = effect.chain.get(name)
        if metric is None or metric.mean is None:
            return Cell("–")
        value, _, change = chain_text(effect, name).partition(" (")
        return Cell(value, metric.mean, change.removesuffix(")"))

    return PageColumn(name, cell, kind="number", hint=_CHAIN_HINTS.get(name, ""))


def _pairs(effect: Effect) -> Cell:
    over = f"× {effect.settings}" if effect.settings > 1 else ""
    return Cell(str(len(effect.seeds)), len(effect.seeds), over)


def _share(title: str, hint: str, value: Callable[[Importance], float]) -> PageColumn[Importance]:
    return PageColumn(title, lambda one: Cell(percent(value(one)), value(one)), kind="number", hint=hint)


def _trend(title: str, rate: Callable[[Importance], RateImportance]) -> PageColumn[Importance]:
    def cell(one: Importance) -> Cell:
        trend = rate(one).trend
        return Cell("–") if trend is None else Cell(signed(trend / 100, decimals=2), trend)

    hint = "Spearman’s correlation with the setting: above 0 the rate rises with it"
    return PageColumn(title, cell, kind="number", hint=hint)


_VARIANCE, _BEST = "of the variance (fANOVA)", "among the best (PED-ANOVA)"
_IMPORTANCE: tuple[PageColumn[Importance], ...] = (
    PageColumn("setting", lambda one: Cell(one.name, one.name), kind="name"),
    _share("ASR variance", _VARIANCE, lambda one: one.asr.variance),
    _share("lowest ASR", _BEST, lambda one: one.asr.among_best),
    _trend("ASR trend", lambda one: one.asr),
    _share("CA variance", _VARIANCE, lambda one: one.ca.variance),
    _share("highest CA", _BEST, lambda one: one.ca.among_best),
    _trend("CA trend", lambda one: one.ca),
    _share("front", _BEST, lambda one: one.front),
)


def ablation_opening(findings: Findings, summary: Summary, effects: Effects) -> Opening:
    """Return the result of an ablation study in words: what matters, and never a variant that would be chosen."""
    clear = clear_effects(effects)
    number = len(effects.effects)
    detail = [_base_text(effects)]
    if effects.seeds > 1:
        detail += [f"{_sentence(effect)}." for effect in clear[:NAMED]]
        detail.append(f"Intervals are 95%; {count(number, 'effect')} on each rate are corrected for together (Holm).")
    else:
        detail.append("One seed cannot tell an effect from chance: give several (seeds: [0, 1, 2, 3, 4]).")
    return Opening(_title(effects), " ".join(detail), _changes(findings), _effort(findings, summary))


def _title(effects: Effects) -> str:
    clear, number = clear_effects(effects), len(effects.effects)
    changes = count(number, "change")
    if effects.seeds < 2:
        return f"{changes} of the base, under one seed"
    if not clear:
        return f"None of {changes} has a clear effect"
    names = [effect.contrast.name for effect in clear[:NAMED]]
    named = listed(names) if len(clear) <= NAMED else f"most of all {listed(names)}"
    return f"{len(clear)} of {changes} {'has a clear effect' if len(clear) == 1 else 'have clear effects'}: {named}"


def _base_text(effects: Effects) -> str:
    largest = max(effects.effects, key=lambda effect: len(effect.seeds))
    return f"Each change is held against the base on the {SPLITS[effects.split]} split, {pairs_text(largest)}."


def _changes(findings: Findings) -> tuple[Change, ...]:
    measured = compared(findings.base)
    if measured is None:
        return ()
    _, before, after = measured
    found = [Change("clean accuracy, the base", before.ca, after.ca)]
    if before.asr and after.asr:
        found.insert(0, Change("attack success rate, the base", before.asr, after.asr))
    return tuple(found)


def _effort(findings: Findings, summary: Summary) -> str:
    return f"{states_text(findings)} {time_text(summary)}"


def _sentence(effect: Effect) -> str:
    text = rates_text(effect)
    return text if effect.contrast.before else text[0].upper() + text[1:]  # a setting's name stays as it is
