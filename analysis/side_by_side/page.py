"""The page of several runs, as its template takes it: what is held against what, and the tables cell by cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go
from markupsafe import Markup

from analysis.effects import Difference, Effect
from analysis.effects.output import interval
from analysis.figures.base import Absent
from analysis.formatting import count, percent, signed
from analysis.page import Cell, PageColumn, PageTable, table_of
from analysis.points.configurations import Estimate
from analysis.rendering import Texts, figure_json, plotly_packed, template
from analysis.side_by_side.choices import Row
from analysis.side_by_side.defenses import DefenseRows, defenses_page
from analysis.side_by_side.effects import EffectRow, EffectRows
from analysis.side_by_side.output import device_seconds, difference_note, rates_before_and_after
from analysis.side_by_side.settings import Differing
from analysis.side_by_side.sides import Side
from ubt.common.formatting import duration


@dataclass(frozen=True)
class Shown:
    """A figure as the page takes it: its JSON, or why it is absent."""

    name: str
    title: str
    caption: str
    json: Markup
    absent: str
    height: int = 0
    """In pixels: its place on the page before it is drawn."""

    @property
    def kind(self) -> Shown:
        """Return itself: what the report's figures have in their kind."""
        return self


FRONTS = (
    "fronts",
    "Fronts",
    "Up and to the left is better. A line joins the front of each run, a star is its choice, a cross its poisoned "
    "model. Fronts and choices are made on validation; the test split shows the same configurations on images that no "
    "decision has seen.",
)
GROWTH = (
    "growth",
    "Hypervolume against device time",
    "The area that a run’s front dominates on validation, between ASR 1 at CA 0 and ASR 0 at CA 1, after each of its "
    "trials. Left, stages that the run’s trials share count once, as if its store had been empty; right, every trial "
    "counts from nothing. Neither depends on what other runs left in the store, nor on how many workers there were.",
)


def shown(about: tuple[str, str, str], figure: go.Figure | Absent, texts: Texts) -> Shown:
    """Return a figure for the page, whose texts are among `texts`."""
    if isinstance(figure, Absent):
        return Shown(*about, Markup(), figure.why)
    return Shown(*about, figure_json(figure, texts), "", int(figure.layout.height or 450))


def render(
    sides: Sequence[Side],
    rows: Sequence[Row],
    settings: Sequence[Differing],
    effects: EffectRows,
    defenses: DefenseRows,
    notes: Sequence[str],
    figures: Sequence[Shown],
    texts: Texts,
) -> str:
    """Return the page as HTML. Names and settings are escaped: runs may come from anywhere."""
    return template("runs.html.j2").render(
        title=f"{count(len(sides), 'run')} side by side",
        names=[side.name for side in sides],
        notes=notes,
        runs=runs_page(rows),
        difference_note=difference_note(rows),
        figures=figures,
        effects=effects_page(effects),
        apart=any(row.apart for row in effects.rows),
        defenses=defenses_page(defenses),
        defenses_note=defenses.note if defenses.rows else "",
        settings=settings_page(settings, sides),
        texts=texts.json,
        plotly=plotly_packed(),
    )


def runs_page(rows: Sequence[Row]) -> PageTable:
    """Return the runs: poisoned model, choice, what it differs by, front and times."""

    def rate(row: Row, of: str, before: bool) -> Cell:
        outcome = rates_before_and_after(row)[0 if before else 1]
        estimate: Estimate | None = getattr(outcome, of, None)
        return Cell(percent(estimate.mean), estimate.mean, estimate.interval) if estimate else Cell("–")

    def time(row: Row, without_sharing: bool) -> Cell:
        seconds = device_seconds(row.side)[without_sharing]
        return Cell(duration(seconds), seconds) if row.side.growth else Cell("–")

    columns: list[PageColumn[Row]] = [
        PageColumn("run", lambda row: Cell(row.side.name, row.side.name, row.side.place), kind="name"),
        PageColumn("trials", lambda row: _number(len(row.side.findings.run.records)), kind="number"),
        PageColumn("poisoned ASR", lambda row: rate(row, "asr", before=True), kind="number"),
        PageColumn("poisoned CA", lambda row: rate(row, "ca", before=True), kind="number"),
        PageColumn("chosen", _chosen, kind="name"),
        PageColumn("ASR", lambda row: rate(row, "asr", before=False), kind="number", hint="of the choice, on test"),
        PageColumn("CA", lambda row: rate(row, "ca", before=False), kind="number", hint="of the choice, on test"),
    ]
    if any(row.against for row in rows):
        hint = "to the choice of the first run of the same victim, in points"
        columns += [
            PageColumn("ASR difference", lambda row: _difference(_of(row, "asr")), kind="number", hint=hint),
            PageColumn("CA difference", lambda row: _difference(_of(row, "ca")), kind="number", hint=hint),
        ]
    columns += [
        PageColumn("front", lambda row: _number(len(row.side.findings.front)), kind="number", hint="configurations"),
        PageColumn("hypervolume", _hypervolume, kind="number", hint="of the front, on validation"),
        PageColumn("device time", lambda row: time(row, without_sharing=False), kind="number", hint="with sharing"),
        PageColumn("without sharing", lambda row: time(row, without_sharing=True), kind="number"),
    ]
    if any(row.on_common_front is not None for row in rows):
        hint = "how many of the points on the common front of all runs of the victim are of this run"
        columns.append(PageColumn("on the common front", _on_common, kind="number", hint=hint))
    if len({row.group for row in rows}) > 1:
        columns.insert(1, PageColumn("victim", lambda row: _number(row.group), kind="number", hint="equal for equals"))
    return table_of("Runs", tuple(columns), rows)


def _number(value: int) -> Cell:
    return Cell(f"{value:,}", value)


def _chosen(row: Row) -> Cell:
    return Cell(row.chosen.name, row.chosen.name, " · ".join(row.settings)) if row.chosen else Cell("none")


def _of(row: Row, rate: str) -> Difference | None:
    found: Difference | None = getattr(row.against, rate, None)
    return found


def _hypervolume(row: Row) -> Cell:
    value = row.side.summary.hypervolume
    return Cell(f"{value:.4f}", value) if row.side.growth else Cell("–")


def _on_common(row: Row) -> Cell:
    if row.on_common_front is None:
        return Cell("–")
    common = "" if row.common is None else f"of {row.common:.4f} together"
    return Cell(str(row.on_common_front), row.on_common_front, common)


def _difference(found: Difference | None, clear: bool = False) -> Cell:
    if found is None:
        return Cell("–")
    return Cell(signed(found.mean), found.mean, interval(found), tag="clear" if clear else "")


def effects_page(effects: EffectRows) -> PageTable:
    """Return every change with what it does to both rates in each run."""

    def column(rate: str, at: int, name: str) -> PageColumn[EffectRow]:
        def cell(row: EffectRow) -> Cell:
            effect: Effect | None = row.effects[at]
            found: Difference | None = getattr(effect, rate, None)
            return _difference(found, clear=bool(found and found.significant))

        return PageColumn(f"{rate.upper()}, {name}", cell, kind="number")

    return table_of(
        "Effects",
        (
            PageColumn[EffectRow]("change", lambda row: Cell(row.name, row.name), kind="name"),
            *(column(rate, at, side.name) for rate in ("asr", "ca") for at, side in enumerate(effects.sides)),
            PageColumn[EffectRow](
                "apart",
                lambda row: Cell(" and ".join(row.apart), " ".join(row.apart)),
                hint="rates on which the intervals of two runs have nothing in common",
            ),
        ),
        effects.rows,
    )


def settings_page(found: Sequence[Differing], sides: Sequence[Side]) -> PageTable:
    """Return what differs, with a column for each run."""

    def column(at: int, name: str) -> PageColumn[Differing]:
        return PageColumn(name, lambda one: Cell(one.values[at], one.values[at]))

    return table_of(
        "What differs",
        (
            PageColumn[Differing]("setting", lambda one: Cell(one.path, one.path), kind="name"),
            *(column(at, side.name) for at, side in enumerate(sides)),
        ),
        found,
    )
