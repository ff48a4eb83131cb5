"""Effects in words, and as tables for pandas, Markdown and LaTeX."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from analysis.effects.estimates import CHAIN, Difference, Effect, Effects, Split
from analysis.effects.importance import Importance, Importances, RateImportance
from analysis.formatting import LATEX, count, signed
from analysis.tables import Column, tabulate

SPLITS: Mapping[Split, str] = {"test": "test", "val": "validation"}


def interval(difference: Difference) -> str:
    """Return the 95 % interval of a difference in points: `−0.4 … +2.9`."""
    return f"{signed(difference.low)} … {signed(difference.high)}"


def p_text(p: float | None) -> str:
    """Return a p-value as papers print it: `0.031`, `< 0.001`; `–` if there was no test."""
    if p is None:
        return "–"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def effect_text(effect: Effect) -> str:
    """Return an effect as a sentence has it, in points.

    `without overfitting: ASR +1.2 points (−0.4 … +2.9), CA −0.1 (−0.9 … +0.6), 5 pairs of seeds`
    """
    rates = rates_text(effect)
    return f"{rates}, {pairs_text(effect)}" if effect.seeds and effect.ca else rates


def rates_text(effect: Effect) -> str:
    """Return the same without the number of pairs."""
    rates = [(name, found) for name, found in (("ASR", effect.asr), ("CA", effect.ca)) if found]
    if not rates:
        return f"{effect.contrast.name}: not measured beside what it is held against"
    units = [" points", *[""] * (len(rates) - 1)]
    parts = [
        f"{name} {signed(found.mean)}{unit} ({interval(found)})"
        for (name, found), unit in zip(rates, units, strict=True)
    ]
    return f"{effect.contrast.name}: {', '.join(parts)}"


def pairs_text(effect: Effect) -> str:
    """Say how many pairs an effect is of: `5 pairs of seeds`, and in how many settings of the rest."""
    over = f" in {count(effect.settings, 'setting')} of the rest" if effect.settings > 1 else ""
    return f"{count(len(effect.seeds), 'pair')} of seeds{over}" if len(effect.seeds) > 1 else f"one seed{over}"


def notes(effects: Effects) -> tuple[str, ...]:
    """Return what a reader of the table has to know, one sentence each."""
    found = [
        f"Differences in points on the {SPLITS[effects.split]} split{_alike(effects)}, each with its 95% interval; "
        "above 0 the change raises the rate."
    ]
    every = [rate for effect in effects.effects for rate in (effect.asr, effect.ca) if rate]
    if any(rate.spread == "seeds" for rate in every):
        found.append(
            "Both sides of a pair have the same seed, and so the same victim; intervals are Student’s over the seeds’ "
            "differences, of each effect by itself. p is that of the paired t-test, corrected for the number of "
            "effects on the rate (Holm): who calls clear what is below 0.05 is wrong about any in 5 of 100 such tables."
        )
    if effects.seeds == 1:
        found.append(
            "There is one seed, which cannot tell an effect from chance: intervals are of the sampling of images alone "
            "(Newcombe’s), and there is no p."
        )
    elif any(rate.spread == "images" for rate in every):
        found.append(
            "Where all seeds differ by the same, or there is but one, the interval is of the sampling of images alone "
            "(Newcombe’s), and there is no p."
        )
    if any(effect.settings > 1 for effect in effects.effects):
        found.append("An effect is the mean over all settings of the rest that both sides were run with.")
    missing = [effect.contrast.name for effect in effects.effects if not effect.seeds or effect.ca is None]
    if missing:
        found.append(f"Not measured under any seed that the other side was: {', '.join(missing)}.")
    return tuple(found)


def same_pairs(effects: Effects) -> bool:
    """Return whether all effects are of equally many pairs, at one choice of the other settings."""
    return len({(len(effect.seeds), effect.settings) for effect in effects.effects}) == 1


def _alike(effects: Effects) -> str:
    return f", {pairs_text(effects.effects[0])}" if same_pairs(effects) and effects.seeds else ""


CAVEATS = (
    "All are of the trials that were run, worked out by Optuna on validation. ASR variance and CA variance: the share "
    "of a rate’s variance that the knob alone explains, over all that was tried, bad values too (fANOVA). Lowest ASR, "
    "highest CA and front: its share in what sets the best trials apart (PED-ANOVA). Trend: Spearman’s correlation. "
    "They say that a knob matters, not which value is good: see what each knob does."
)
OF_A_SEARCH = (
    "A search by results tries more where it found something, so these are importances there rather than in the whole "
    "space, and no effects can be told from it; a grid, `ofat` or `pairs` tells them."
)


def importance_notes(importances: Importances) -> tuple[str, ...]:
    """Return what a reader of the importances has to know, one sentence each."""
    number = count(importances.configurations, "configuration")
    best = f"The best are {importances.best} of {number}."
    few = "So few say little: another seed of the search may well order the knobs otherwise."
    return (
        CAVEATS,
        best,
        *((few,) if importances.configurations < 50 else ()),
        *((OF_A_SEARCH,) if importances.adaptive else ()),
    )


@dataclass(frozen=True)
class _Line:
    kind: str
    effect: Effect
    split: Split


def effects_table(effects: Effects) -> pd.DataFrame:
    """Return one line an effect, then one an interaction: differences as fractions, with intervals and p-values."""
    lines = [_Line("effect", effect, effects.split) for effect in effects.effects]
    lines += [_Line("interaction", effect, effects.split) for effect in effects.interactions]
    columns: tuple[Column[_Line], ...] = (
        Column("kind", lambda line: line.kind),
        Column("name", lambda line: line.effect.contrast.name),
        Column("factor", lambda line: " × ".join(line.effect.contrast.factors)),
        Column("before", lambda line: line.effect.contrast.before),
        Column("after", lambda line: line.effect.contrast.after),
        Column("split", lambda line: line.split),
        Column("seeds", lambda line: len(line.effect.seeds)),
        Column("settings", lambda line: line.effect.settings),
        *(_rate_column(rate, part) for rate in ("asr", "ca") for part in _PARTS),
        *(column for name in CHAIN for column in _chain_columns(name)),
    )
    return tabulate(lines, columns)


_PARTS: Mapping[str, str] = {
    "mean": "",
    "low": "_low",
    "high": "_high",
    "spread": "_spread",
    "p": "_p",
    "p_holm": "_p_holm",
}


def _rate_column(rate: str, part: str) -> Column[_Line]:
    return Column(f"{rate}{_PARTS[part]}", lambda line: getattr(getattr(line.effect, rate), part, None))


def _chain_columns(name: str) -> tuple[Column[_Line], ...]:
    def part(of: str) -> Column[_Line]:
        ending = "" if of == "mean" else f"_{of}"
        return Column(f"{name.lower()}{ending}", lambda line: getattr(line.effect.chain.get(name), of, None))

    return part("mean"), part("difference")


def importances_table(importances: Importances) -> pd.DataFrame:
    """Return one line a knob: its importance for both rates by both evaluators, and how the rates go with it."""
    columns: list[Column[Importance]] = [Column("setting", lambda one: one.path)]
    for rate in ("asr", "ca"):
        columns += [_importance_column(rate, part) for part in RateImportance.__dataclass_fields__]
    return tabulate(importances.knobs, (*columns, Column("front_among_best", lambda one: one.front)))


def _importance_column(rate: str, part: str) -> Column[Importance]:
    return Column(f"{rate}_{part}", lambda one: getattr(getattr(one, rate), part))


def _head(chain: Sequence[str]) -> tuple[str, ...]:
    return ("change", "ASR", "p", "CA", "p", *chain, "pairs")


def _cells(effect: Effect, shown: Sequence[str]) -> tuple[str, ...]:
    """Return an effect's cells as text, without any marking."""
    rates = [
        cell for rate in (effect.asr, effect.ca) for cell in (_rate_text(rate), p_text(rate.p_holm if rate else None))
    ]
    chain = [chain_text(effect, name) for name in shown]
    pairs = str(len(effect.seeds)) + (f" × {effect.settings}" if effect.settings > 1 else "")
    return (effect.contrast.name, *rates, *chain, pairs)


def _rate_text(rate: Difference | None) -> str:
    return f"{signed(rate.mean)} ({interval(rate)})" if rate else "–"


def chain_text(effect: Effect, name: str) -> str:
    """Return a metric of the chain and how it changes: `0.93 (−0.02)`; `–` if it is not known."""
    metric = effect.chain.get(name)
    if metric is None or metric.mean is None:
        return "–"
    change = "" if metric.difference is None else f" ({_plain_signed(metric.difference)})"
    return f"{metric.mean:.2f}{change}"


def _plain_signed(value: float) -> str:
    return signed(value / 100, decimals=2)


def _clear(effect: Effect) -> tuple[int, ...]:
    """Return the cells that stand for clear effects: the place of a rate in `_cells`."""
    return tuple(at for at, rate in ((1, effect.asr), (3, effect.ca)) if rate and rate.significant)


def effects_markdown(effects: Effects) -> str:
    """Return the effects, the interactions and what is to be known of them in Markdown; clear ones are bold."""
    parts = [_markdown(effects.effects, effects.chain)]
    if effects.interactions:
        parts += ["How far the effect of one depends on the other:", _markdown(effects.interactions)]
    return "\n\n".join((*parts, *notes(effects))) + "\n"


def _markdown(found: Sequence[Effect], chain: Sequence[str] = ()) -> str:
    head = _head(chain)
    rows = [head, ("---", *["---:"] * (len(head) - 1))]
    for effect in found:
        clear = _clear(effect)
        rows.append(tuple(f"**{c}**" if at in clear else c for at, c in enumerate(_cells(effect, chain))))
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows)


def effects_latex(effects: Effects) -> str:
    """Return the effects, then the interactions, as a LaTeX tabular each (package booktabs); clear ones are bold."""
    tables = [_latex(effects.effects, effects.chain)]
    if effects.interactions:
        tables.append(_latex(effects.interactions))
    comment = "".join(f"% {_ascii(note)}\n" for note in notes(effects))
    return comment + "\n".join(tables)


def _latex(found: Sequence[Effect], chain: Sequence[str] = ()) -> str:
    lines = [[_escaped(name) for name in _head(chain)]]
    for effect in found:
        cells, clear = [_escaped(cell) for cell in _cells(effect, chain)], _clear(effect)
        lines.append([rf"\textbf{{{cell}}}" if at in clear else cell for at, cell in enumerate(cells)])
    head, *rows = (f"{' & '.join(line)} \\\\\n" for line in lines)
    columns = "l" + "r" * (len(lines[0]) - 1)
    rules = f"\\toprule\n{head}\\midrule\n{''.join(rows)}\\bottomrule\n"
    return f"\\begin{{tabular}}{{{columns}}}\n{rules}\\end{{tabular}}\n"


_LATEX = {**LATEX, "+": "$+$"}
_ASCII = {"−": "-", "…": "...", "’": "'", "‘": "'", "→": "->"}


def _escaped(text: str) -> str:
    """Return text as LaTeX prints it."""
    return "".join(_LATEX.get(letter, letter) for letter in text)


def _ascii(text: str) -> str:
    return "".join(_ASCII.get(letter, letter) for letter in text)


def clear_effects(effects: Effects) -> tuple[Effect, ...]:
    """Return the effects that are clear on any rate, the largest first."""
    clear = [effect for effect in effects.effects if _clear(effect)]
    return tuple(sorted(clear, key=lambda effect: -max(abs(rate.mean) for rate in _significant(effect))))


def _significant(effect: Effect) -> Iterable[Difference]:
    return [rate for rate in (effect.asr, effect.ca) if rate and rate.significant]
