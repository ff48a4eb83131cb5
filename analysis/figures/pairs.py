"""Two knobs at a time: both rates over the plane of each of the pairs that matter most, as contours or a heat map."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.subplots import make_subplots

from analysis.figures import base
from analysis.figures.base import Absent
from analysis.figures.knobs import CHOSEN, OTHERS, KnobPanel, KnobPoint, Look, Rates, add_legend, knobs_info, log_ticks
from analysis.findings import Findings
from analysis.formatting import setting_text

MOST_KNOBS = 3
"""Pairs are of so many knobs: those that explain most of either rate."""
FEWEST = 8
"""Configurations below which a plane says nothing."""
MOST_LEVELS = 10
"""A knob of so many values has a row or column for each of them; one of more is continuous."""
BINS = 6
"""Of a continuous knob beside one of few values."""
GRID, REACH, ENOUGH = 25, 0.1, 0.5
"""Contours are drawn through so many places a side. At each stands the mean of what is near, weighted by a normal curve
of this width, as a share of the side; where the weights add up to less than `ENOUGH`, nothing is known."""
PANEL_PX = 300


@dataclass(frozen=True)
class Level:
    """Values of a knob that share a row or a column."""

    name: str
    values: frozenset[float | str]


@dataclass(frozen=True)
class Pair:
    """Two knobs, and the configurations that have both: each as it stands in the panel of the first and the second."""

    across: KnobPanel
    up: KnobPanel
    points: tuple[tuple[KnobPoint, KnobPoint], ...]

    @property
    def continuous(self) -> bool:
        """Return whether both are numbers of many values: contours are drawn through them."""
        return not (_few(self.across) or _few(self.up))

    def heat(self, rate: Rate) -> tuple[list[list[float | None]], list[list[int]]]:
        """Return, by level of `up` and of `across`, the median of a rate and the number of configurations."""
        rows, columns = levels(self.up), levels(self.across)
        cells = [[self._within(column, row, rate) for column in columns] for row in rows]
        return [[median(cell) if cell else None for cell in row] for row in cells], [list(map(len, r)) for r in cells]

    def _within(self, column: Level, row: Level, rate: Rate) -> list[float]:
        found = [rate(x) for x, y in self.points if x.value in column.values and y.value in row.values]
        return [value for value in found if value is not None]

    def surface(self, rate: Rate) -> list[list[float | None]]:
        """Return a rate over a grid of both axes, from below: the weighted mean of what is near."""
        known = [(x.value, y.value, found) for x, y in self.points if (found := rate(x)) is not None]
        at = np.stack(
            [_places(self.across, [x for x, *_ in known]), _places(self.up, [y for _, y, _ in known])], axis=1
        )
        rates = np.array([found for *_, found in known])
        side = np.linspace(0, 1, GRID)
        x, y = np.meshgrid(side, side)
        places = np.stack([x.ravel(), y.ravel()], axis=1)
        far = ((places[:, None, :] - at[None, :, :]) ** 2).sum(axis=2)
        weights = np.exp(-far / (2 * REACH**2))
        total = weights.sum(axis=1)
        mean = (weights @ rates) / np.maximum(total, 1e-12)
        return _rows(np.where(total >= ENOUGH, mean, np.nan))


Rate = Callable[[KnobPoint], float | None]


def _places(panel: KnobPanel, values: Sequence[float | str]) -> NDArray[np.float64]:
    """Return where values lie on a knob's axis, from 0 to 1."""
    low, *_, high = panel.values
    begin, end = _scaled(panel, low), _scaled(panel, high)
    return np.array([(_scaled(panel, value) - begin) / (end - begin) for value in values])


def _rows(flat: NDArray[np.float64]) -> list[list[float | None]]:
    return [[None if np.isnan(one) else float(one) for one in row] for row in flat.reshape(GRID, GRID)]


def _scaled(panel: KnobPanel, value: float | str) -> float:
    assert isinstance(value, float)  # noqa: S101 — of a continuous knob
    return float(np.log10(value)) if panel.scale == "log" else value


def _few(panel: KnobPanel) -> bool:
    return panel.scale == "category" or len(panel.values) <= MOST_LEVELS


def levels(panel: KnobPanel) -> list[Level]:
    """Return the rows or columns of a knob: its values, or as many of them at a time as make equal parts."""
    values = panel.values
    if _few(panel):
        return [Level(_named(value), frozenset([value])) for value in values]
    parts = [values[at * len(values) // BINS : (at + 1) * len(values) // BINS] for at in range(BINS)]
    return [Level(f"{_named(part[0])} … {_named(part[-1])}", frozenset(part)) for part in parts if part]


def _named(value: float | str) -> str:
    return value if isinstance(value, str) else setting_text(float(f"{value:.3g}"))


@dataclass(frozen=True)
class PairsInfo:
    """The pairs, and the rates that are shown of each."""

    pairs: tuple[Pair, ...]
    rates: Rates


def pairs_info(findings: Findings) -> PairsInfo | Absent:
    """Work out the planes; absent unless two knobs were varied together in several trials."""
    knobs = knobs_info(findings)
    if isinstance(knobs, Absent):
        return knobs
    rates = knobs.rates
    panels = sorted(knobs.panels, key=lambda panel: -max(explained(panel, rate) for _, rate in rates))[:MOST_KNOBS]
    pairs = [_pair(across, up) for across, up in combinations(panels, 2)]
    known = tuple(pair for pair in pairs if len(pair.points) >= FEWEST and _crossed(pair))
    return PairsInfo(known, rates) if known else Absent("It needs two settings that were varied together.")


def _pair(across: KnobPanel, up: KnobPanel) -> Pair:
    of_up: Mapping[str, KnobPoint] = {point.name: point for point in up.points}
    return Pair(across, up, tuple((point, of_up[point.name]) for point in across.points if point.name in of_up))


def _crossed(pair: Pair) -> bool:
    """Return whether the two were not only varied one at a time."""
    return any(not (x.alone or y.alone) for x, y in pair.points)


def explained(panel: KnobPanel, rate: Rate) -> float:
    """Return the share of a rate's variance that lies between the levels of a knob."""
    level_of = {value: level.name for level in levels(panel) for value in level.values}
    groups: dict[str, list[float]] = {}
    for point in panel.points:
        if (found := rate(point)) is not None:
            groups.setdefault(level_of[point.value], []).append(found)
    every = [value for group in groups.values() for value in group]
    if len(every) < 2 or np.var(every) == 0:
        return 0.0
    within = sum(len(group) * float(np.var(group)) for group in groups.values()) / len(every)
    return 1 - within / float(np.var(every))


def draw_pairs(info: PairsInfo) -> go.Figure:
    """Draw the figure: a column a pair, a row a rate."""
    rows, columns = len(info.rates), len(info.pairs)
    figure = make_subplots(rows=rows, cols=columns, horizontal_spacing=0.26 / columns, vertical_spacing=0.2 / rows)
    figure.update_layout(base.blank(height=PANEL_PX * rows + 90))
    for row, (name, rate) in enumerate(info.rates, start=1):
        found = [value for pair in info.pairs for x, _ in pair.points if (value := rate(x)) is not None]
        shades: dict[str, object] = {"coloraxis": f"coloraxis{row}"}
        figure.update_layout({f"coloraxis{row}": _scale(name, found, rows, row)})
        for column, pair in enumerate(info.pairs, start=1):
            figure.add_traces(_plane(pair, name, rate, shades), rows=row, cols=column)
            figure.update_xaxes(_axis(pair, pair.across), row=row, col=column)
            figure.update_yaxes(_axis(pair, pair.up), row=row, col=column)
    add_legend(figure, [OTHERS, CHOSEN] if any(pair.continuous for pair in info.pairs) else [CHOSEN])
    return figure


def _scale(name: str, rates: Sequence[float], rows: int, row: int) -> dict[str, object]:
    bar = {
        "title": {"text": name, "side": "top"}, "tickformat": base.PERCENT, "thickness": 12, "outlinewidth": 0,
        "len": 0.86 / rows, "y": 1 - (row - 0.5) / rows, "x": 1.01, "nticks": 5,
    }  # fmt: skip
    return {"colorscale": "Viridis", "cmin": min(rates), "cmax": max(rates), "colorbar": bar}


def _plane(pair: Pair, name: str, rate: Rate, shades: dict[str, object]) -> list[go.Contour | go.Heatmap | go.Scatter]:
    chosen = [both for both in pair.points if both[0].chosen]
    if not pair.continuous:
        medians, counts = pair.heat(rate)
        said = [["no configuration" if not n else f"of {n}" for n in row] for row in counts]
        hover = f"{name}, median: %{{z:.1%}} (%{{text}})<br>%{{x}}, %{{y}}<extra></extra>"
        columns, rows = [level.name for level in levels(pair.across)], [level.name for level in levels(pair.up)]
        heat = go.Heatmap(z=medians, x=columns, y=rows, text=said, hovertemplate=hover, xgap=2, ygap=2, **shades)
        return [heat, _dots(chosen, CHOSEN, pair)]
    lines = {"color": "rgba(255, 255, 255, 0.35)", "width": 0.5}
    hover = f"{name} near here: %{{z:.1%}}<extra></extra>"
    across, up = _side(pair.across), _side(pair.up)
    contour = go.Contour(
        z=pair.surface(rate), x=across, y=up, line=lines, ncontours=12, connectgaps=False, hovertemplate=hover, **shades
    )
    step = -(-len(pair.points) // 200)
    return [contour, _dots(pair.points[::step], OTHERS, pair), _dots(chosen, CHOSEN, pair)]


def _side(panel: KnobPanel) -> list[float]:
    low, high = (_scaled(panel, panel.values[end]) for end in (0, -1))
    side = np.linspace(low, high, GRID)
    return [float(one) for one in (10**side if panel.scale == "log" else side)]


def _dots(points: Sequence[tuple[KnobPoint, KnobPoint]], look: Look, pair: Pair) -> go.Scatter:
    marker = look.marker | {"line": {"width": 1, "color": "rgba(255, 255, 255, 0.8)"}}

    def place(panel: KnobPanel, value: float | str) -> float | str:
        if pair.continuous:
            return value
        return next(level.name for level in levels(panel) if value in level.values)

    return go.Scatter(
        x=[place(pair.across, x.value) for x, _ in points],
        y=[place(pair.up, y.value) for _, y in points],
        mode="markers",
        marker=marker,
        text=[x.title for x, _ in points],
        customdata=[x.name for x, _ in points],
        hovertemplate="%{text}<extra></extra>",
        showlegend=False,
    )


def _axis(pair: Pair, panel: KnobPanel) -> dict[str, object]:
    shared: dict[str, object] = {
        "title": {"text": base.plain(panel.title), "standoff": 6},
        "tickfont": {"size": 11},
        "showgrid": False,
    }
    if not pair.continuous:
        names = [level.name for level in levels(panel)]
        shown = [name if len(name) <= 16 else f"{name[:15]}…" for name in names]
        return {
            "type": "category", "categoryorder": "array", "categoryarray": names, "tickvals": names, "ticktext": shown,
        } | shared  # fmt: skip
    ends = [_scaled(panel, panel.values[0]), _scaled(panel, panel.values[-1])]
    if panel.scale != "log":
        return {"type": "linear", "range": ends, "nticks": 5} | shared
    ticks = log_ticks([value for value in panel.values if isinstance(value, float)])
    return {"type": "log", "range": ends, "tickvals": ticks, "ticktext": [setting_text(t) for t in ticks]} | shared
