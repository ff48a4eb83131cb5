"""Figures 3 and 4: how overfitting separates poisoned pairs, beside ABL and beside overfitting on all of D."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from analysis.figures.base import Absent
from analysis.findings import Findings
from analysis.formatting import victim_key
from analysis.paper import style
from analysis.paper.artifacts import (
    Artifacts,
    Unreadable,
    by_victim,
    has_stage,
    isolated_pairs,
    matching,
    overfits_on,
    overfitted_pairs,
    overfitted_suspects,
)
from analysis.paper.density import Separation, draw_legend, draw_separation
from ubt.config import difference
from ubt.trials.record import TrialRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FIGURE_3_PANEL_INCHES = 1.08


@dataclass(frozen=True)
class AttackPanels:
    """One column: an attack under both defenses; None where the run has no such trial, or its artifacts are gone."""

    attack: str
    ubt: Separation | None
    abl: Separation | None


@dataclass(frozen=True)
class SimilarityInfo:
    """The columns, and what is missing from them, one sentence each."""

    columns: tuple[AttackPanels, ...]
    notes: tuple[str, ...]

    @property
    def rows(self) -> tuple[tuple[str, tuple[Separation | None, ...]], ...]:
        """Return the rows that have a panel at all, by name."""
        rows = (("UBT", tuple(c.ubt for c in self.columns)), ("ABL", tuple(c.abl for c in self.columns)))
        return tuple((name, panels) for name, panels in rows if any(panels))


def similarity_info(findings: Findings, artifacts: Artifacts) -> SimilarityInfo | Absent:
    """Work out the figure; absent without a finished trial of UBT that overfitted its suspects."""
    ubt, abl = matching(findings, overfits_on("suspicious")), matching(findings, has_stage("isolate"))
    if not ubt:
        return Absent("It needs a finished trial of UBT (`defense.kind: ubt`, `defense.overfit_data: suspicious`).")
    notes = [] if abl else ["Without ABL's row: that needs a finished trial with `defense.kind: abl`."]

    def read(record: TrialRecord | None, reader: Callable[[TrialRecord], Separation]) -> Separation | None:
        try:
            return reader(record) if record else None
        except Unreadable as why:
            notes.append(f"{why}.")
            return None

    columns = tuple(
        AttackPanels(
            attack,
            read(ours, lambda record: overfitted_suspects(artifacts, record)),
            read(theirs, lambda record: isolated_pairs(artifacts, record)),
        )
        for attack, (ours, theirs) in by_victim(findings, ubt, abl).items()
    )
    drawn = tuple(column for column in columns if column.ubt or column.abl)
    return SimilarityInfo(drawn, tuple(notes)) if drawn else Absent(" ".join(notes))


def draw_similarity(info: SimilarityInfo) -> Figure:
    """Draw the figure: a column an attack, in bands of four."""
    count, wide = style.bands(len(info.columns))
    width = style.COLUMN_INCHES if wide < 3 else style.PAGE_INCHES
    figure = style.blank(width, 0.42 + count * (0.25 + FIGURE_3_PANEL_INCHES * len(info.rows)))
    grid = figure.subplots(count * len(info.rows), wide, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for column, panels in enumerate(info.columns):
        band, place = divmod(column, wide)
        for row, (name, separations) in enumerate(info.rows):
            axes = grid[band * len(info.rows) + row, place]
            _panel(axes, separations[column])
            if row == 0:
                style.entitle(axes, panels.attack)
            if place == 0:
                _row_name(axes, name)
    figure.supxlabel("cosine similarity of image and caption", fontsize=style.FONT_POINTS)
    draw_legend(figure)
    return figure


def _panel(axes: Axes, separation: Separation | None) -> None:
    if separation is None:
        axes.text(0.5, 0.5, "no trial", ha="center", va="center", color=style.SOFT, transform=axes.transAxes)
        return
    axes.set_axis_on()
    draw_separation(axes, separation)


def _row_name(axes: Axes, name: str) -> None:
    axes.text(-0.06, 0.5, name, transform=axes.transAxes, rotation=90, ha="right", va="center", weight="bold")


if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURE_4_PANEL_INCHES = 1.2
TITLES = ("overfitted to the suspects", "overfitted to all pairs")


@dataclass(frozen=True)
class AttackPair:
    """One row: an attack, overfitted both ways; each panel shows the pairs that were trained on."""

    attack: str
    suspicious: Separation
    everything: Separation


@dataclass(frozen=True)
class OverfitDataInfo:
    """The rows, and what is missing from them, one sentence each."""

    rows: tuple[AttackPair, ...]
    notes: tuple[str, ...]


def overfit_data_info(findings: Findings, artifacts: Artifacts) -> OverfitDataInfo | Absent:
    """Work out the figure; absent unless some victim was overfitted both ways."""
    everything, suspicious = matching(findings, overfits_on("all")), matching(findings, overfits_on("suspicious"))
    firsts = {victim_key(record): record for record in reversed(everything)}.values()  # one row a victim
    partners = [partner for record in firsts if (partner := _partner(record, suspicious))]
    if not partners:
        return Absent("It needs two finished trials of UBT on one victim: `defense.overfit_data` suspicious, and all.")
    notes, rows = [], []
    for attack, (ours, other) in by_victim(findings, partners, everything).items():
        if ours and other:
            try:
                rows.append(_row(attack, ours, other, artifacts))
            except Unreadable as why:
                notes.append(f"{why}.")
    return OverfitDataInfo(tuple(rows), tuple(notes)) if rows else Absent(" ".join(notes))


def draw_overfit_data(info: OverfitDataInfo) -> Figure:
    """Draw the figure: a row an attack."""
    figure = style.blank(style.COLUMN_INCHES, 0.62 + FIGURE_4_PANEL_INCHES * len(info.rows))
    grid = figure.subplots(len(info.rows), 2, squeeze=False)
    for row, axes_of_row in zip(info.rows, grid, strict=True):
        for axes, separation in zip(axes_of_row, (row.suspicious, row.everything), strict=True):
            draw_separation(axes, separation)
        if len(info.rows) > 1:
            axes_of_row[0].set_ylabel(row.attack)
    for axes, title in zip(grid[0], TITLES, strict=True):
        axes.set_title(title, pad=4)
    figure.supxlabel("cosine similarity of image and caption", fontsize=style.FONT_POINTS)
    draw_legend(figure)
    return figure


def _row(attack: str, ours: TrialRecord, other: TrialRecord, artifacts: Artifacts) -> AttackPair:
    return AttackPair(attack, overfitted_suspects(artifacts, ours), overfitted_pairs(artifacts, other))


def _partner(record: TrialRecord, candidates: Iterable[TrialRecord]) -> TrialRecord | None:
    """Return the trial on the same victim that differs least from this one, of the same seed if there is one."""
    alike = [other for other in candidates if other.config.get("victim") == record.config.get("victim")]
    return min(
        alike,
        key=lambda other: (other.seed != record.seed, len(difference(other.config, record.config))),
        default=None,
    )
