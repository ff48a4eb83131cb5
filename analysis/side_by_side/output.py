"""Runs side by side as tables for pandas, and as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd

from analysis.effects import Difference, Effect
from analysis.effects.output import interval
from analysis.figures.growth import Grown
from analysis.formatting import count, percent, signed
from analysis.points.configurations import Configuration, Estimate, Outcome
from analysis.side_by_side.choices import Against, Row
from analysis.side_by_side.defenses import DefenseRows
from analysis.side_by_side.effects import EffectRows
from analysis.side_by_side.settings import Differing
from analysis.side_by_side.sides import Side
from analysis.tables import Column, configurations_table, tabulate
from ubt.common.formatting import duration


def last_grown(side: Side) -> Grown | None:
    """Return where a run stands after its last trial."""
    return side.growth[-1] if side.growth else None


def device_seconds(side: Side) -> tuple[float, float]:
    """Return a run's device time, with sharing and without."""
    grown = last_grown(side)
    return (grown.shared_seconds, grown.alone_seconds) if grown else (0.0, 0.0)


def runs_table(rows: Sequence[Row]) -> pd.DataFrame:
    """Return one line a run: what it is of, its choice with rates on both splits, front, hypervolume and times."""

    def rate(split: str, of: str, part: str) -> Column[Row]:
        def value(row: Row) -> object:
            chosen = row.chosen or (row.side.findings.victim if split.startswith("poisoned") else None)
            return getattr(getattr(getattr(chosen, split, None), of, None), part, None)

        return Column(f"{split}_{of}" + ("" if part == "mean" else f"_{part}"), value)

    def against(of: str, part: str) -> Column[Row]:
        ending = "" if part == "mean" else f"_{part}"
        return Column(f"difference_{of}{ending}", lambda row: getattr(getattr(row.against, of, None), part, None))

    rates = [
        rate(split, of, part)
        for split in ("poisoned_val", "poisoned_test", "val", "test")
        for of in ("asr", "ca")
        for part in ("mean", "low", "high")
    ]
    columns: tuple[Column[Row], ...] = (
        Column("run", lambda row: row.side.name),
        Column("place", lambda row: row.side.place),
        Column("study", lambda row: row.side.findings.run.name),
        Column("design", lambda row: row.side.findings.run.design),
        Column("victim", lambda row: row.group),
        Column("trials", lambda row: len(row.side.findings.run.records)),
        Column("trials_done", lambda row: row.side.summary.states["DONE"]),  # type: ignore[index]  # its value
        Column("configurations", lambda row: len(row.side.findings.measured)),
        Column("chosen", lambda row: row.chosen.name if row.chosen else None),
        Column("chosen_settings", lambda row: ", ".join(row.settings).replace("\u00a0", " ")),
        *rates,
        Column("held_against", lambda row: row.against.run if row.against else None),
        Column("difference_split", lambda row: row.against.split if row.against else None),
        Column("difference_seeds", lambda row: row.against.seeds if row.against else None),
        *(against(of, part) for of in ("asr", "ca") for part in ("mean", "low", "high")),
        Column("front", lambda row: len(row.side.findings.front)),
        Column("on_common_front", lambda row: row.on_common_front),
        Column("hypervolume", lambda row: row.side.summary.hypervolume if row.side.growth else None),
        Column("common_hypervolume", lambda row: row.common),
        Column("wall_seconds", lambda row: row.side.summary.seconds.wall),
        Column("spent_seconds", lambda row: row.side.summary.seconds.computed),
        Column("shared_seconds", lambda row: device_seconds(row.side)[0]),
        Column("alone_seconds", lambda row: device_seconds(row.side)[1]),
    )
    return tabulate(rows, columns)


def fronts_table(sides: Sequence[Side]) -> pd.DataFrame:
    """Return one line a configuration on the front of its run, as `Run.front` has them, with the run's name first."""
    tables = [configurations_table(s.findings, s.findings.front).assign(run=s.name) for s in sides]
    tables = [table for table in tables if not table.empty]
    if not tables:
        return pd.DataFrame({"run": []})
    joined = pd.concat(tables, ignore_index=True)
    return joined[["run", *(name for name in joined.columns if name != "run")]]


@dataclass(frozen=True)
class _GrownOf:
    run: str
    grown: Grown


def growth_table(sides: Sequence[Side]) -> pd.DataFrame:
    """Return one line a trial of each run, in the order in which they ended: hypervolume so far, and device time."""
    columns: tuple[Column[_GrownOf], ...] = (
        Column("run", lambda one: one.run),
        Column("trials", lambda one: one.grown.trials),
        Column("trial", lambda one: one.grown.trial),
        Column("shared_seconds", lambda one: one.grown.shared_seconds),
        Column("alone_seconds", lambda one: one.grown.alone_seconds),
        Column("hypervolume", lambda one: one.grown.hypervolume),
    )
    return tabulate([_GrownOf(side.name, grown) for side in sides for grown in side.growth], columns)


def settings_table(found: Sequence[Differing], sides: Sequence[Side]) -> pd.DataFrame:
    """Return one line for each thing that differs, and a column for each run."""
    columns: tuple[Column[Differing], ...] = (
        Column("part", lambda one: one.part),
        Column("setting", lambda one: one.path),
        *(_value_column(at, side.name) for at, side in enumerate(sides)),
    )
    return tabulate(found, columns)


def _value_column(at: int, name: str) -> Column[Differing]:
    return Column(name, lambda one: one.values[at])


@dataclass(frozen=True)
class _EffectOf:
    run: str
    split: str
    effect: Effect


def effects_of_runs(found: EffectRows) -> pd.DataFrame:
    """Return one line for each effect of each run that holds effects."""
    lines = [
        _EffectOf(side.name, side.effects.split, effect)
        for row in found.rows
        for side, effect in zip(found.sides, row.effects, strict=True)
        if effect
    ]
    rates = [_rate(of, part) for of in ("asr", "ca") for part in ("mean", "low", "high", "spread", "p_holm")]
    columns: tuple[Column[_EffectOf], ...] = (
        Column("name", lambda one: one.effect.contrast.name),
        Column("run", lambda one: one.run),
        Column("split", lambda one: one.split),
        Column("seeds", lambda one: len(one.effect.seeds)),
        *rates,
    )
    return tabulate(lines, columns)


def _rate(of: str, part: str) -> Column[_EffectOf]:
    ending = "" if part == "mean" else f"_{part}"
    return Column(f"{of}{ending}", lambda one: getattr(getattr(one.effect, of), part, None))


def estimate_text(estimate: Estimate | None) -> str:
    """Return a rate with its interval in percent: `3.6% (2.6–5.0)`."""
    return f"{percent(estimate.mean)} ({estimate.interval})" if estimate else "–"


def difference_text(difference: Difference | None) -> str:
    """Return a difference in points with its interval: `+1.2 (−0.4 … +2.9)`."""
    return f"{signed(difference.mean)} ({interval(difference)})" if difference else "–"


def rates_before_and_after(row: Row) -> tuple[Outcome | None, Outcome | None]:
    """Return the poisoned model and the choice on test; on validation, if test was not measured."""
    chosen = row.chosen
    victim = chosen or (row.side.findings.victim if row.side.victim else None)
    return _reported(victim, poisoned=True), _reported(chosen, poisoned=False)


def _reported(configuration: Configuration | None, poisoned: bool) -> Outcome | None:
    if configuration is None:
        return None
    if poisoned:
        return configuration.poisoned_test or configuration.poisoned_val
    return configuration.test or configuration.val


def difference_note(rows: Sequence[Row]) -> str:
    """Say how differences of choices came about; "" if there are none."""
    found: list[Against] = [row.against for row in rows if row.against]
    if not found:
        return ""
    seeds = sorted({one.seeds for one in found})
    pairs = " or ".join(count(number, "seed") for number in seeds)
    alone = any(rate.spread == "images" for one in found for rate in (one.asr, one.ca) if rate)
    images = (
        " Where there is one seed, or all differ by the same, the interval is of the sampling of images alone: it says "
        "nothing of other seeds."
        if alone
        else ""
    )
    return (
        f"Differences are to the choice of the first run of the same victim, in points, paired over {pairs}, with 95% "
        f"intervals. Each choice is the best of its run on validation, so a difference is between searches, and each "
        f"interval is of one difference by itself.{images}"
    )


def markdown(
    rows: Sequence[Row],
    settings: Sequence[Differing],
    effects: EffectRows,
    defenses: DefenseRows,
    notes: Iterable[str],
    sides: Sequence[Side],
) -> str:
    """Return the runs, their defenses and effects, and what differs between them, in Markdown."""
    note = difference_note(rows)
    parts = [_runs_markdown(rows), *notes, *([note] if note else [])]
    if defenses.rows:
        heads = _heads("defense", defenses.sides)
        cells = [
            (row.name, *(estimate_text(getattr(mean, of, None)) for of in ("asr", "ca") for mean in row.means))
            for row in defenses.rows
        ]
        parts += [defenses.note, _table(heads, cells)]
    if effects:
        heads = _heads("change", effects.sides)
        cells = [
            (row.name, *(difference_text(getattr(effect, of, None)) for of in ("asr", "ca") for effect in row.effects))
            for row in effects.rows
        ]
        parts += ["Effects in points:", _table(heads, cells)]
    if settings:
        heads = ("setting", *(side.name for side in sides))
        parts += ["What differs:", _table(heads, [(one.path, *one.values) for one in settings])]
    else:
        parts.append("No setting differs.")
    return "\n\n".join(parts) + "\n"


def _heads(first: str, sides: Sequence[Side]) -> tuple[str, ...]:
    return (first, *(f"{rate}, {side.name}" for rate in ("ASR", "CA") for side in sides))


def _runs_markdown(rows: Sequence[Row]) -> str:
    heads = ("run", "trials", "poisoned ASR", "chosen", "ASR", "CA", "hypervolume", "device time", "ASR to the first")
    cells = []
    for row in rows:
        before, after = rates_before_and_after(row)
        shared, _ = device_seconds(row.side)
        cells.append(
            (
                row.side.name,
                str(len(row.side.findings.run.records)),
                estimate_text(before.asr if before else None),
                row.chosen.name if row.chosen else "none",
                estimate_text(after.asr if after else None),
                estimate_text(after.ca if after else None),
                f"{row.side.summary.hypervolume:.4f}" if row.side.growth else "–",
                duration(shared) if row.side.growth else "–",
                difference_text(row.against.asr) if row.against else "–",
            )
        )
    return _table(heads, cells)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ("---", *["---:"] * (len(heads) - 1)), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
