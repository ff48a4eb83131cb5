"""How a search came on: hypervolume over trials and device time, and every configuration as a line over its knobs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from analysis.figures import base
from analysis.figures.base import Absent
from analysis.figures.growth import Grown, growth
from analysis.findings import Findings
from analysis.formatting import percent, setting_text, short_names
from analysis.points.configurations import Configuration
from analysis.tables import as_scalar, setting


def growth_info(findings: Findings) -> tuple[Grown, ...] | Absent:
    """Work out the hypervolume after each trial; absent without a front."""
    if not findings.measured:
        return base.nothing_measured(findings)
    return growth(findings) or base.no_attack_known()


def draw_growth(found: tuple[Grown, ...]) -> go.Figure:
    """Draw the hypervolume over trials, and over device hours with and without sharing."""
    figure = make_subplots(rows=1, cols=2, horizontal_spacing=0.09, shared_yaxes=True)
    figure.update_layout(base.blank(height=340))
    reached = [one.hypervolume for one in found]
    texts = [f"after {base.plain(one.trial)}: {one.hypervolume:.4f}" for one in found]
    courses = (
        ("trials", [one.trials for one in found], base.FRONT, 1),
        ("device hours, stages shared", [one.shared_seconds / 3600 for one in found], base.CHOSEN, 2),
        ("device hours, nothing shared", [one.alone_seconds / 3600 for one in found], base.OTHER, 2),
    )
    for name, x, colour, column in courses:
        line = {"color": colour, "width": 2, "shape": "hv"}
        trace = go.Scatter(x=x, y=reached, name=name, mode="lines", line=line, text=texts)
        trace.update(hovertemplate="%{text}<extra></extra>", showlegend=column == 2)
        figure.add_trace(trace, row=1, col=column)
    figure.update_xaxes(title="trials that have ended", col=1)
    figure.update_xaxes(title="device hours", col=2)
    figure.update_yaxes(title="hypervolume", range=base.rate_range(reached), col=1)
    return figure


MOST_LINES = 200
"""Of more configurations the front, the choice, and others evenly drawn are lines."""
SHADES = ("#0072B2", "#5FA3CC", "#9AA0A8", "#E0955F", "#D55E00")
"""By fifths of ASR, from blue to orange: on a light page and on a dark one."""


@dataclass(frozen=True)
class Axis:
    """One knob, or a rate: where its values lie between 0 and 1, and what is written beside them."""

    title: str
    places: tuple[float, ...]
    labels: tuple[str, ...]
    """At the bottom and the top."""


@dataclass(frozen=True)
class ParallelInfo:
    """A line a configuration, over the same axes."""

    axes: tuple[Axis, ...]
    titles: tuple[str, ...]
    trials: tuple[str, ...]
    shades: tuple[int, ...]
    chosen: int | None


def parallel_info(findings: Findings) -> ParallelInfo | Absent:
    """Work out the lines; absent unless several knobs were varied under a known attack."""
    if not findings.measured:
        return base.nothing_measured(findings)
    if not findings.attacked:
        return base.no_attack_known()
    shown = _shown([one for one in findings.searched if one.point], findings)
    names = short_names(findings.run.knobs)
    knobs = [(path, [as_scalar(setting(one.first, path)) for one in shown]) for path in findings.run.knobs]
    varied = [(names[path], values) for path, values in knobs if len(set(values)) > 1]
    if len(varied) < 2:
        return Absent("It needs two settings that were measured at several values.")
    points = [one.point for one in shown if one.point]
    rates = (("ASR", [asr for asr, _ in points]), ("CA", [ca for _, ca in points]))
    axes = [_axis(title, values) for title, values in varied] + [_rate_axis(*rate) for rate in rates]
    order = sorted(range(len(points)), key=lambda at: points[at][0])
    shades = [0] * len(points)
    for rank, at in enumerate(order):
        shades[at] = rank * len(SHADES) // len(points)
    return ParallelInfo(
        axes=tuple(axes),
        titles=tuple(base.hover_title(one, findings) for one in shown),
        trials=tuple(one.first.trial for one in shown),
        shades=tuple(shades),
        chosen=next((at for at, one in enumerate(shown) if one is findings.chosen), None),
    )


def _shown(found: Sequence[Configuration], findings: Findings) -> list[Configuration]:
    step = -(-len(found) // MOST_LINES)
    kept = {id(one) for one in (*findings.front, findings.chosen, *found[::step])}
    return [one for one in found if id(one) in kept]


def _axis(title: str, values: Sequence[object]) -> Axis:
    numbers = [float(v) for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(numbers) == len(values) and len(set(numbers)) > 1:
        # By rank among the values that were tried: scales of any kind are filled evenly.
        distinct = sorted(set(numbers))
        rank = {value: at / (len(distinct) - 1) for at, value in enumerate(distinct)}
        return Axis(
            title, tuple(map(rank.__getitem__, numbers)), (setting_text(distinct[0]), setting_text(distinct[-1]))
        )
    words = [setting_text(value) if value is not None else "–" for value in values]  # type: ignore[arg-type]
    kinds = sorted(set(words))
    place = {word: at / max(1, len(kinds) - 1) for at, word in enumerate(kinds)}
    return Axis(title, tuple(place[word] for word in words), (kinds[0], kinds[-1]))


def _rate_axis(title: str, rates: Sequence[float]) -> Axis:
    low, high = min(rates), max(rates)
    width = (high - low) or 1.0
    return Axis(title, tuple((rate - low) / width for rate in rates), (percent(low), percent(high)))


def draw_parallel(info: ParallelInfo) -> go.Figure:
    """Draw the lines, the chosen one on top; blue ones have a low ASR."""
    figure = go.Figure(layout=base.blank(height=430))
    for shade, colour in enumerate(SHADES):
        lines = [at for at, found in enumerate(info.shades) if found == shade and at != info.chosen]
        name = ("lowest fifth of ASR", "", "", "", "highest fifth of ASR")[shade]
        figure.add_trace(_lines(info, lines, colour, 1.0, name))
    if info.chosen is not None:
        figure.add_trace(_lines(info, [info.chosen], base.CHOSEN, 3.5, "chosen"))
    ends = [(at, axis.labels) for at, axis in enumerate(info.axes)]
    labels = [
        {"x": at, "y": y, "text": _short(text), "showarrow": False, "yanchor": anchor, "font": {"size": 11}}
        for at, (low, high) in ends
        for y, text, anchor in ((-0.02, low, "top"), (1.02, high, "bottom"))
    ]
    figure.update_layout(annotations=labels)
    titles = [base.plain(axis.title) for axis in info.axes]
    figure.update_xaxes(tickvals=list(range(len(titles))), ticktext=titles, tickangle=20 if len(titles) > 6 else 0)
    figure.update_xaxes(range=[-0.3, len(titles) - 0.7])
    figure.update_yaxes(visible=False, range=[-0.12, 1.12])
    figure.update_layout(margin={"l": 20, "b": 80})
    return figure


def _short(text: str) -> str:
    return base.plain(text if len(text) < 16 else f"{text[:14]}…")


def _lines(info: ParallelInfo, lines: Sequence[int], colour: str, width: float, name: str) -> go.Scatter:
    x: list[int | None] = []
    y: list[float | None] = []
    texts: list[str] = []
    trials: list[str] = []
    for line in lines:
        x += [*range(len(info.axes)), None]
        y += [*(round(axis.places[line], 4) for axis in info.axes), None]
        texts += [info.titles[line]] * (len(info.axes) + 1)
        trials += [info.trials[line]] * (len(info.axes) + 1)
    return go.Scatter(
        x=x,
        y=y,
        mode="lines",
        line={"color": colour, "width": width},
        opacity=0.6 if width < 2 else 1.0,
        name=name,
        showlegend=bool(name and lines),
        text=texts,
        customdata=trials,
        hovertemplate="%{text}<extra></extra>",
    )
