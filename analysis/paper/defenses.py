"""The comparison as a figure: attack success rate and clean accuracy of every defense, a panel an attack."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from analysis.comparison.compare import Comparison, Row, compare
from analysis.comparison.output import MEAN
from analysis.figures.base import Absent
from analysis.findings import Findings
from analysis.paper import style
from analysis.paper.artifacts import Artifacts
from analysis.points.configurations import Estimate, Outcome

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROW_INCHES = 0.155


@dataclass(frozen=True)
class DefensePanel:
    """One attack, or the mean over all: the rates of each defense, in the order of the rows."""

    title: str
    outcomes: tuple[Outcome | None, ...]


@dataclass(frozen=True)
class DefensesInfo:
    """The rows' names, from the top, which of them is the method, and the panels."""

    names: tuple[str, ...]
    method: tuple[bool, ...]
    panels: tuple[DefensePanel, ...]
    notes: tuple[str, ...] = ()


def defenses_info(findings: Findings, _artifacts: Artifacts | None = None) -> DefensesInfo | Absent:
    """Work out the figure; absent if the run has a single defense, or nothing of it is measured."""
    comparison = compare(findings)
    if comparison is None or not any(of.outcome for row in comparison.rows[1:] for of in row.results):
        return Absent("It needs finished trials of several defenses.")
    return DefensesInfo(
        names=tuple(row.name for row in comparison.rows),
        method=tuple(row is comparison.method for row in comparison.rows),
        panels=_panels(comparison),
    )


def _panels(comparison: Comparison) -> tuple[DefensePanel, ...]:
    def panel(title: str, outcomes: Iterable[Outcome | None]) -> DefensePanel:
        return DefensePanel(title, tuple(outcomes))

    rows: tuple[Row, ...] = comparison.rows
    each = tuple(
        panel(name, (row.results[column].outcome for row in rows)) for column, name in enumerate(comparison.victims)
    )
    if len(comparison.victim.common) < 2:
        return each
    return (*each, panel(MEAN, (row.mean for row in rows)))


def draw_defenses(info: DefensesInfo) -> Figure:
    """Draw the figure: in bands of four panels, the defenses by name at the left of each."""
    count, wide = style.bands(len(info.panels))
    width = style.COLUMN_INCHES if wide < 3 else style.PAGE_INCHES
    figure = style.blank(width, 0.5 + count * (0.42 + ROW_INCHES * len(info.names)))
    grid = figure.subplots(count, wide, squeeze=False, sharey=True)
    for axes in grid.flat[len(info.panels) :]:
        axes.set_axis_off()
    for axes, panel in zip(grid.flat, info.panels, strict=False):
        _draw_panel(axes, panel, info)
    for axes in grid[:, 0]:
        for label, is_method in zip(axes.get_yticklabels(), info.method, strict=True):
            label.set_fontweight("bold" if is_method else "normal")
    figure.supxlabel("on the test split, %", fontsize=style.FONT_POINTS)
    handles, names = grid.flat[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=2)
    return figure


def _draw_panel(axes: Axes, panel: DefensePanel, info: DefensesInfo) -> None:
    rows = range(len(info.names))
    style.entitle(axes, panel.title, bold=panel.title == MEAN)
    axes.set(xlim=(-3, 103), ylim=(len(info.names) - 0.4, -0.6), xticks=(0, 25, 50, 75, 100), yticks=rows)
    axes.set_xticklabels(("0", "", "50", "", "100"))
    axes.set_yticklabels(info.names, fontsize=style.FONT_POINTS)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=style.RULE, linewidth=0.4)
    axes.set_axisbelow(True)
    axes.spines["left"].set_visible(False)
    for row in rows:
        if info.method[row]:
            axes.axhspan(row - 0.5, row + 0.5, color=style.METHOD, alpha=0.09, linewidth=0)
    found = [(row, outcome) for row, outcome in enumerate(panel.outcomes) if outcome]
    # A little above and below the middle of its row, neither hides the other.
    attacked = [(row - 0.12, o.asr) for row, o in found if o.asr]
    _draw_rates(axes, attacked, "attack success rate", "o", style.POISONED)
    _draw_rates(axes, [(row + 0.12, o.ca) for row, o in found], "clean accuracy", "D", style.CLEAN, fill="white")


def _draw_rates(
    axes: Axes, rates: list[tuple[float, Estimate]], name: str, marker: str, colour: str, fill: str = ""
) -> None:
    means = [100 * rate.mean for _, rate in rates]
    below = [max(0.0, 100 * (rate.mean - rate.low)) for _, rate in rates]
    above = [max(0.0, 100 * (rate.high - rate.mean)) for _, rate in rates]
    axes.errorbar(
        means,
        [height for height, _ in rates],
        xerr=[below, above],
        fmt=marker,
        color=colour,
        markerfacecolor=fill or colour,
        markersize=3.4,
        markeredgewidth=0.9,
        elinewidth=0.9,
        label=name,
        zorder=3,
    )
