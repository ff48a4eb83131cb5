"""The report's interactive figures as images, in the style of those for papers: for pages that run no scripts.

What they show is worked out by `analysis.figures`; here it is drawn once more, by matplotlib.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from analysis.effects.importance import Importances, find_importances
from analysis.figures.base import Absent, attempt
from analysis.figures.epochs import Course, EpochsInfo, epochs_info
from analysis.figures.front import FrontInfo, Mark, SplitInfo, front_info, steps
from analysis.figures.knobs import KnobPanel, KnobsInfo, knobs_info
from analysis.findings import Findings
from analysis.paper import PAPER_FIGURES, PaperFigure, paper_figure, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DOTS_PER_INCH = 160
_ON_A_PAGE = 96
"""Of those that a description shows: MLflow's pages take pictures as wide as they are, and move what is beside."""
_TOP = 104
"""Upper end of axes in percent, so that points at 100 are whole."""
_MOST_PANELS = 12


def stills(findings: Findings) -> dict[str, bytes]:
    """Return front, knobs, epochs, importance and those for papers, as PNG by name; those that the run has data for."""
    found: dict[str, bytes] = {}
    kinds: dict[str, tuple[Callable[[Findings], Any], Callable[[Any], Figure]]] = {
        "front": (front_info, _front),
        "knobs": (knobs_info, _knobs),
        "epochs": (epochs_info, _epochs),
        "importance": (_importances, _importance),
    }
    for name, (work_out, draw) in kinds.items():
        drawn = attempt(name, partial(_png, findings, work_out, draw))
        if not isinstance(drawn, Absent):
            found[name] = drawn
    for kind in PAPER_FIGURES:
        drawn = attempt(kind.name, partial(_paper_png, findings, kind))
        if not isinstance(drawn, Absent):
            found[kind.name] = drawn
    return found


def _paper_png(findings: Findings, kind: PaperFigure[Any]) -> bytes | Absent:
    figure = paper_figure(kind, findings)
    if isinstance(figure, Absent):
        return figure
    with style.paper_style():
        return style.rendered(figure, "png", dots_per_inch=_DOTS_PER_INCH)["png"]


def _png(findings: Findings, work_out: Callable[[Findings], Any], draw: Callable[[Any], Figure]) -> bytes | Absent:
    info = work_out(findings)
    if isinstance(info, Absent):
        return info
    with style.paper_style():
        return style.rendered(draw(info), "png", dots_per_inch=_ON_A_PAGE)["png"]


def _importances(findings: Findings) -> Importances | Absent:
    return find_importances(findings) or Absent("no several knobs were varied at once in enough trials")


def _importance(info: Importances) -> Figure:
    knobs = info.knobs[:_MOST_PANELS][::-1]  # the first one on top
    figure = style.blank(style.PAGE_INCHES, 0.8 + 0.35 * len(knobs))
    axes = figure.subplots()
    shares = [("attack success", style.POISONED, 0.2, [knob.asr.variance for knob in knobs])]
    shares.append(("clean accuracy", style.CLEAN, -0.2, [knob.ca.variance for knob in knobs]))
    for name, colour, offset, found in shares:
        at = [number + offset for number in range(len(knobs))]
        axes.barh(at, [100 * share for share in found], height=0.38, color=colour, label=name)
    axes.set_yticks(range(len(knobs)), [knob.name for knob in knobs])
    axes.set(xlabel=f"share of the variance over {info.configurations:,} configurations, %", xlim=(0, 100))
    axes.legend()
    return figure


def _front(info: FrontInfo) -> Figure:
    splits = [split for split in info.splits if split.front or split.others]
    figure = style.blank(style.PAGE_INCHES, 3.2)
    for axes, split in zip(figure.subplots(1, len(splits), squeeze=False)[0], splits, strict=True):
        _plane(axes, split)
        style.entitle(axes, {"val": "validation", "test": "test"}[split.split])
    handles, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=5)
    return figure


def _plane(axes: Axes, split: SplitInfo) -> None:
    _marks(axes, split.others, "other trials", "o", style.RULE)
    if split.split == "val":
        corners = steps(split.front)
        axes.plot([100 * x for x, _ in corners], [100 * y for _, y in corners], color=style.METHOD, linewidth=0.9)
    _marks(axes, split.front, "front", "o", style.METHOD)
    _marks(axes, split.base, "base", "s", style.INK)
    _marks(axes, split.poisoned, "poisoned model", "X", style.POISONED)
    _marks(axes, split.chosen, "chosen", "*", style.CLEAN, size=90)
    if split.floor is not None:
        axes.axhline(100 * split.floor, color=style.SOFT, linewidth=0.6, linestyle=":")
    axes.set(xlabel="attack success, %", ylabel="clean accuracy, %", xlim=(-4, _TOP))


def _marks(axes: Axes, marks: Iterable[Mark], name: str, shape: str, colour: str, size: float = 22) -> None:
    points = [(100 * mark.asr.mean, 100 * mark.ca.mean) for mark in marks]
    if points:
        x, y = zip(*points, strict=True)
        axes.scatter(x, y, s=size, marker=shape, color=colour, label=name, linewidths=0, zorder=3)


def _epochs(info: EpochsInfo) -> Figure:
    attacked = any(point.asr for course in info.courses for point in course.points)
    titles = ["attack success, %", "clean accuracy, %"] if attacked else ["clean accuracy, %"]
    figure = style.blank(style.PAGE_INCHES, 2.8)
    for axes, title in zip(figure.subplots(1, len(titles), squeeze=False)[0], titles, strict=True):
        for course in info.courses:
            _course(axes, course, "asr" if title.startswith("attack") else "ca")
        axes.set(xlabel="epoch (0: the poisoned model)", ylabel=title)
    figure.axes[0].legend()
    return figure


def _course(axes: Axes, course: Course, rate: str) -> None:
    found = [(point.epoch, getattr(point, rate)) for point in course.points if getattr(point, rate)]
    epochs = [epoch for epoch, _ in found]
    colour = style.CLEAN if course.role == "chosen" else style.SOFT
    axes.fill_between(
        epochs, [100 * e.low for _, e in found], [100 * e.high for _, e in found], color=colour, alpha=0.15, linewidth=0
    )
    axes.plot(epochs, [100 * e.mean for _, e in found], "o-", color=colour, markersize=3, label=course.role)


def _knobs(info: KnobsInfo) -> Figure:
    panels = info.panels[:_MOST_PANELS]
    count, wide = style.bands(len(panels))
    rates = info.rates
    figure = style.blank(style.PAGE_INCHES, 0.2 + 1.5 * count * len(rates))
    grid = figure.subplots(count * len(rates), wide, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for number, panel in enumerate(panels):
        for row, (name, rate) in enumerate(rates):
            axes = grid[(number // wide) * len(rates) + row, number % wide]
            axes.set_axis_on()
            _knob(axes, panel, [(point.value, rate(point), point.chosen) for point in panel.points])
            axes.set_ylabel(f"{name}, %" if number % wide == 0 else "")
            if row == 0:
                style.entitle(axes, panel.title)
    return figure


def _knob(axes: Axes, panel: KnobPanel, points: Iterable[tuple[float | str, float | None, bool]]) -> None:
    values = list(panel.values)
    known = [(values.index(value) if panel.scale == "category" else value, y, chosen) for value, y, chosen in points
             if y is not None]  # fmt: skip
    for chosen, colour, size in ((False, style.METHOD, 10), (True, style.CLEAN, 60)):
        here = [(x, 100 * y) for x, y, is_chosen in known if is_chosen is chosen]
        if here:
            xs, ys = zip(*here, strict=True)
            axes.scatter(xs, ys, s=size, marker="*" if chosen else "o", color=colour, linewidths=0, alpha=0.8, zorder=3)
    if panel.scale == "log":
        axes.set_xscale("log")
    if panel.scale == "category":
        axes.set_xticks(range(len(values)), [str(value)[:12] for value in values], rotation=30, ha="right")
