"""The figures of several runs: their fronts in one plane, and hypervolume against device time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from analysis.figures import base
from analysis.figures.base import Absent
from analysis.figures.front import Mark, steps
from analysis.figures.growth import Grown
from analysis.formatting import count, percent
from analysis.points.configurations import Configuration, Outcome
from analysis.side_by_side.sides import Side

COLOURS = (base.FRONT, base.POISONED, base.CHOSEN, base.BASE, "#CC79A7", "#56B4E9", base.OTHER)
"""Okabe and Ito's; from the eighth run on they come again, with another shape."""
SHAPES = ("circle", "diamond", "square", "triangle-up")

Split = Literal["val", "test"]
SPLIT_NAMES: dict[Split, str] = {"val": "validation", "test": "test"}


@dataclass(frozen=True)
class FrontOf:
    """One run's front on one split; it is made on validation, and shown on both."""

    name: str
    split: Split
    front: tuple[Mark, ...]
    chosen: Mark | None
    poisoned: Mark | None


@dataclass(frozen=True)
class FrontsInfo:
    """The fronts of all runs on both splits, run by run."""

    fronts: tuple[FrontOf, ...]
    colours: tuple[str, ...]
    """Of each of `fronts`."""
    shapes: tuple[str, ...]


def fronts_info(sides: Sequence[Side]) -> FrontsInfo | Absent:
    """Work out the figure; absent if no run has a front."""
    found, looks = [], []
    for at, side in enumerate(sides):
        for split in SPLIT_NAMES:
            one = _front_of(side, split)
            if one.front or one.poisoned:
                found.append(one)
                looks.append(at)
    if not any(one.front for one in found):
        return Absent("No run has a front: nothing is measured, no attack is known, or a run has several victims.")
    colours, shapes = zip(*map(_look, looks), strict=True)
    return FrontsInfo(tuple(found), colours, shapes)


def _look(at: int) -> tuple[str, str]:
    return COLOURS[at % len(COLOURS)], SHAPES[at // len(COLOURS) % len(SHAPES)]


def _front_of(side: Side, split: Split) -> FrontOf:
    findings = side.findings
    defended: Callable[[Configuration], Outcome | None] = (lambda c: c.val) if split == "val" else (lambda c: c.test)
    poisoned: Callable[[Configuration], Outcome | None] = (
        (lambda c: c.poisoned_val) if split == "val" else (lambda c: c.poisoned_test)
    )

    def mark(configuration: Configuration | None, outcome: Callable[[Configuration], Outcome | None]) -> Mark | None:
        found = outcome(configuration) if configuration else None
        if configuration is None or found is None or found.asr is None:
            return None
        return Mark(base.hover_title(configuration, findings), found.asr, found.ca)

    marks = [mark(member, defended) for member in findings.front]
    victim = findings.victim if side.victim else None
    return FrontOf(
        side.name,
        split,
        tuple(one for one in marks if one),
        mark(findings.chosen, defended),
        mark(victim, poisoned),
    )


def draw_fronts(info: FrontsInfo) -> go.Figure:
    """Draw the figure: a line and dots for each front, a star for the choice, a cross for the poisoned model."""
    figure = go.Figure(layout=base.blank(height=540))
    for one, colour, shape in zip(info.fronts, info.colours, info.shapes, strict=True):
        bound = steps(one.front) if one.split == "val" else []
        drawn = [
            _line([asr for asr, _ in bound], [ca for _, ca in bound], colour, one.name, legend=False),
            _dots(one, one.front, {"color": colour, "size": 8, "symbol": shape}, one.name, legend=True),
            _dots(one, [one.poisoned], {"color": colour, "size": 11, "symbol": "x"}, f"{one.name}: poisoned model"),
            _dots(one, [one.chosen], {"color": colour, "size": 16, "symbol": "star"}, f"{one.name}: chosen"),
        ]
        for trace in drawn:
            trace.update(meta={"split": one.split}, visible=one.split == "val" or "legendonly", legendgroup=one.name)
        figure.add_traces([trace for trace in drawn if trace.x])
    figure.update_xaxes(title=f"{base.ASR_AXIS} (lower is better)", tickformat=base.PERCENT)
    figure.update_yaxes(title=f"{base.CA_AXIS} (higher is better)", tickformat=base.PERCENT)
    return figure


def _dots(
    one: FrontOf, marks: Iterable[Mark | None], marker: dict[str, object], title: str, legend: bool = False
) -> go.Scatter:
    shown = [mark for mark in marks if mark]
    outline = {"line": {"width": 1, "color": "rgba(255, 255, 255, 0.7)"}}
    return go.Scatter(
        x=[mark.asr.mean for mark in shown],
        y=[mark.ca.mean for mark in shown],
        name=base.plain(one.name + ("" if one.split == "val" else f", {SPLIT_NAMES[one.split]}")),
        mode="markers",
        marker=marker | outline,
        text=[_hover(base.plain(title), mark, one.split) for mark in shown],
        hovertemplate="%{text}<extra></extra>",
        showlegend=legend,
    )


def _hover(title: str, mark: Mark, split: Split) -> str:
    asr, ca = (f"{percent(rate.mean)} ({rate.interval})" for rate in (mark.asr, mark.ca))
    return f"{title}<br>{mark.title}<br>ASR {asr}, CA {ca} on {SPLIT_NAMES[split]}"


def _line(
    x: Sequence[float], y: Sequence[float], colour: str, name: str, legend: bool, shape: str = "linear"
) -> go.Scatter:
    return go.Scatter(
        x=list(x),
        y=list(y),
        mode="lines",
        line={"color": colour, "width": 1.5, "shape": shape},
        name=base.plain(name),
        showlegend=legend,
        hoverinfo="skip",
    )


@dataclass(frozen=True)
class GrowthInfo:
    """Hypervolume of each run, trial by trial, and the unit of device time."""

    runs: tuple[tuple[str, tuple[Grown, ...], str], ...]
    """Name, points and colour."""
    unit: str
    unit_seconds: float


def growth_info(sides: Sequence[Side]) -> GrowthInfo | Absent:
    """Work out the figure; absent if no run has a front."""
    found = [(side.name, side.growth, _look(at)[0]) for at, side in enumerate(sides) if side.growth]
    if not any(one.hypervolume for _, grown, _ in found for one in grown):
        return Absent("No run has a front whose hypervolume could grow.")
    longest = max(grown[-1].alone_seconds for _, grown, _ in found)
    unit, seconds = ("hours", 3600.0) if longest >= 7200 else ("minutes", 60.0) if longest >= 120 else ("seconds", 1.0)
    return GrowthInfo(tuple(found), unit, seconds)


def draw_growth(info: GrowthInfo) -> go.Figure:
    """Draw the figure: device time with what trials of a run share, and beside it without."""
    titles = ("sharing within the run", "without sharing")
    figure = make_subplots(rows=1, cols=2, shared_yaxes=True, horizontal_spacing=0.05, subplot_titles=titles)
    figure.update_layout(base.blank(height=440))
    for run in info.runs:
        figure.add_trace(_growing(run, [one.shared_seconds for one in run[1]], info, legend=True), row=1, col=1)
        figure.add_trace(_growing(run, [one.alone_seconds for one in run[1]], info, legend=False), row=1, col=2)
    figure.update_xaxes(title=f"device time, {info.unit}", rangemode="tozero")
    figure.update_yaxes(title="hypervolume", row=1, col=1)
    return figure


def _growing(
    run: tuple[str, tuple[Grown, ...], str], seconds: Sequence[float], info: GrowthInfo, legend: bool
) -> go.Scatter:
    name, grown, colour = run
    x, y = [0.0, *(time / info.unit_seconds for time in seconds)], [0.0, *(one.hypervolume for one in grown)]
    title = base.plain(name)
    return _line(x, y, colour, name, legend, shape="hv").update(
        text=[title, *(f"{title}<br>after {count(one.trials, 'trial')} ({base.plain(one.trial)})" for one in grown)],
        hoverinfo=None,
        hovertemplate=f"%{{text}}<br>%{{y:.4f}} after %{{x:.3g}} {info.unit}<extra></extra>",
        legendgroup=name,
    )
