"""An ablation as a figure: what each change does to both rates, each seed as a point, the mean with its interval."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from dataclasses import dataclass

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from analysis.effects.estimates import Difference, Effect, Effects, find_effects
from analysis.effects.output import SPLITS, interval, p_text
from analysis.figures import base
from analysis.figures.base import Absent
from analysis.findings import Findings
from analysis.formatting import signed

ROW_PX = 34
NAME_LETTERS = 44
SPREAD = 0.22
"""How far the points of seeds lie apart in their row, of its height."""


@dataclass(frozen=True)
class Measured:
    """One change, and its difference in one rate."""

    name: str
    difference: Difference
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class ComponentsInfo:
    """The names of the changes in the order of the table, and what is known of each by rate."""

    split: str
    names: tuple[str, ...]
    rates: tuple[tuple[str, tuple[Measured, ...]], ...]


def components_info(findings: Findings) -> ComponentsInfo | Absent:
    """Work out the figure; absent unless components were left out of a base that was measured."""
    if not findings.measured:
        return base.nothing_measured(findings)
    if not findings.run.leaves_out:
        return Absent("It needs trials that leave out components (`design: leave_one_out`).")
    effects = find_effects(findings)
    of: dict[str, Callable[[Effect], Difference | None]] = {"ASR": lambda e: e.asr, "CA": lambda e: e.ca}
    rates = tuple((name, found) for name, rate in of.items() if (found := _measured(effects, rate)))
    if not rates:
        return Absent("No component has been measured beside the base yet.")
    return ComponentsInfo(SPLITS[effects.split], tuple(e.contrast.name for e in effects.effects), rates)


def _measured(effects: Effects, rate: Callable[[Effect], Difference | None]) -> tuple[Measured, ...]:
    return tuple(Measured(e.contrast.name, found, e.seeds) for e in effects.effects if (found := rate(e)))


def draw_components(info: ComponentsInfo) -> go.Figure:
    """Draw the figure: a panel a rate, a row a change, and a line where nothing changes."""
    figure = make_subplots(rows=1, cols=len(info.rates), horizontal_spacing=0.04, shared_yaxes=True)
    figure.update_layout(base.blank(height=150 + ROW_PX * len(info.names)))
    place = {name: at for at, name in enumerate(info.names)}
    for column, (rate, found) in enumerate(info.rates, start=1):
        figure.add_traces(_traces(rate, found, place, named=column == 1), rows=1, cols=column)
        figure.add_vline(x=0, line={"color": base.INK, "width": 1, "dash": "dot"}, row=1, col=column)
        figure.update_xaxes(title=f"{rate}, points from the base", row=1, col=column)
    names = ["<br>".join(textwrap.wrap(base.plain(name), NAME_LETTERS)) for name in info.names]
    figure.update_yaxes(tickvals=list(range(len(names))), range=[len(names) - 0.5, -0.5])
    figure.update_yaxes(ticktext=names, col=1)
    return figure


def _traces(rate: str, found: tuple[Measured, ...], place: dict[str, int], named: bool) -> list[go.Scatter]:
    seeds = [
        (100 * value, place[one.name] + SPREAD * _offset(at, len(one.seeds)), f"seed {seed}: {signed(value)}")
        for one in found
        for at, (seed, value) in enumerate(zip(one.seeds, one.difference.values, strict=False))
        if len(one.seeds) > 1
    ]
    dots = go.Scatter(
        x=[x for x, *_ in seeds],
        y=[y for _, y, _ in seeds],
        text=[text for *_, text in seeds],
        mode="markers",
        marker={"color": base.OTHER, "size": 6, "opacity": 0.7},
        name="seeds",
        hovertemplate="%{text}<extra></extra>",
        showlegend=named,
    )
    clear = [one.difference.significant for one in found]
    means = go.Scatter(
        x=[100 * one.difference.mean for one in found],
        y=[place[one.name] for one in found],
        error_x={
            "type": "data", "symmetric": False, "thickness": 1.6, "width": 4, "color": base.FRONT,
            "array": [100 * (one.difference.high - one.difference.mean) for one in found],
            "arrayminus": [100 * (one.difference.mean - one.difference.low) for one in found],
        },
        text=[_hover(rate, one) for one in found],
        mode="markers",
        marker={
            "color": base.FRONT, "size": 10, "symbol": ["diamond" if one else "diamond-open" for one in clear],
        },
        name="mean, 95% interval; filled: a clear effect",
        hovertemplate="%{text}<extra></extra>",
        showlegend=named,
    )  # fmt: skip
    return [trace for trace in (dots, means) if trace.x]


def _offset(at: int, number: int) -> float:
    return 2 * at / (number - 1) - 1


def _hover(rate: str, one: Measured) -> str:
    p = one.difference.p_holm
    tested = f", p {p_text(p)}" if p is not None else ""
    said = f"{rate} {signed(one.difference.mean)} points ({interval(one.difference)}){tested}"
    return f"<b>{base.plain(one.name)}</b><br>{said}"
