"""Each searched knob against both objectives: small multiples, one column a knob."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import median
from typing import Literal

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from analysis.figures import base
from analysis.figures.base import Absent
from analysis.findings import Findings
from analysis.formatting import percent, setting_text, short_names
from analysis.points.configurations import Configuration, Outcome
from analysis.tables import as_scalar, setting

PER_BAND = 4
"""Knobs side by side; more continue in a further band of two rows."""
LABELLED_VALUES = 6
"""Up to so many distinct values, the axis is labelled at the values themselves."""
MOST_TICKS = 5
LABEL_LETTERS = 14
"""A word on an axis is cut behind so many; the whole is shown where a point is pointed at."""
MOST_DOTS = 300
"""Of more configurations so many, evenly drawn, are a dot in each panel; medians are of all."""
FEWEST_FOR_MEDIANS = 12
"""Configurations below which there is no line of medians."""
MOST_MEDIANS = 12
"""Of more distinct values, neighbours share a median."""
ROW_PX, GAP_PX = 150, 84
"""Height of a panel, and of what its titles and labels take below it."""

Scale = Literal["linear", "log", "category"]


@dataclass(frozen=True)
class KnobPoint:
    """One configuration in a knob's panel; words are escaped for plotly."""

    name: str
    title: str
    value: float | str
    asr: float | None
    """None if no attack is known."""
    ca: float
    alone: bool
    """The base, or the base with only this knob changed: the ablation proper."""
    chosen: bool


Rates = tuple[tuple[str, Callable[[KnobPoint], float | None]], ...]
"""What each row of a band is called, and the rate that it shows of a point."""
CA: Rates = (("CA", lambda point: point.ca),)


@dataclass(frozen=True)
class KnobPanel:
    """One knob: how its axis is scaled, and its points by rising value."""

    path: str
    title: str
    scale: Scale
    points: tuple[KnobPoint, ...]

    @cached_property
    def values(self) -> tuple[float | str, ...]:
        """Return the distinct values in order."""
        return tuple(dict.fromkeys(point.value for point in self.points))

    @property
    def dots(self) -> tuple[KnobPoint, ...]:
        """Return the points that are drawn each by itself: all that change this knob alone, and of the rest not all."""
        others = [point for point in self.points if not point.alone]
        return tuple(others[:: -(-len(others) // MOST_DOTS)] if others else ())

    def medians(self, rate: Callable[[KnobPoint], float | None]) -> list[tuple[float | str, float]]:
        """Return (value, median of a rate) by rising value; neighbours are taken together where values are many."""
        known = [(point.value, found) for point in self.points if (found := rate(point)) is not None]
        if len(known) < FEWEST_FOR_MEDIANS:
            return []
        each = self.scale == "category" or len(self.values) <= MOST_MEDIANS
        groups: dict[float | str, list[tuple[float | str, float]]] = {}
        first: dict[float | str, int] = {}
        for place, pair in enumerate(known):
            # Equal values stay together, so that no group has but the earlier trials of a value.
            rank = first.setdefault(pair[0], place)
            groups.setdefault(pair[0] if each else rank * MOST_MEDIANS // len(known), []).append(pair)
        return [
            (_middle([value for value, _ in group]), median(rate for _, rate in group)) for group in groups.values()
        ]


def _middle(values: Sequence[float | str]) -> float | str:
    numbers = [value for value in values if isinstance(value, float)]
    return median(numbers) if numbers else values[0]


@dataclass(frozen=True)
class KnobsInfo:
    """The panels, in the order of the search space."""

    panels: tuple[KnobPanel, ...]

    @property
    def rates(self) -> Rates:
        """Return the rates that there are, in the order of a band's rows: ASR only if an attack is known."""
        attacked = any(point.asr is not None for panel in self.panels for point in panel.points)
        return (("ASR", lambda point: point.asr), *CA) if attacked else CA


def knobs_info(findings: Findings) -> KnobsInfo | Absent:
    """Work out the figure; absent unless some knob was measured at two values."""
    if not findings.measured:
        return base.nothing_measured(findings)
    names = short_names(findings.run.knobs)
    panels = [_panel(findings, path, names[path]) for path in findings.run.knobs]
    varied = tuple(panel for panel in panels if len(panel.values) > 1)
    return KnobsInfo(varied) if varied else Absent("No setting has been measured at more than one value.")


def _panel(findings: Findings, path: str, title: str) -> KnobPanel:
    shown = [c for c in findings.measured if not c.epoch_of or c is findings.chosen]
    values_of = [(c, as_scalar(setting(c.first, path))) for c in shown]
    present = [(c, value) for c, value in values_of if value is not None]
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for _, value in present)
    values: list[float | str] = [float(v) if numbers else base.plain(setting_text(v)) for _, v in present]
    found = [_point(findings, c, c.val, path, value) for (c, _), value in zip(present, values, strict=True) if c.val]
    scale = scale_of([v for v in values if isinstance(v, float)]) if numbers else "category"
    return KnobPanel(path, title, scale, tuple(sorted(found, key=lambda point: point.value)))


def scale_of(values: list[float]) -> Scale:
    """Return `log` for positive values that span more than a decade, else `linear`."""
    return "log" if values and min(values) > 0 and max(values) / min(values) > 10 else "linear"


def _point(findings: Findings, configuration: Configuration, val: Outcome, path: str, value: float | str) -> KnobPoint:
    return KnobPoint(
        name=configuration.first.trial,
        title=base.hover_title(configuration, findings),
        value=value,
        asr=val.asr.mean if val.asr else None,
        ca=val.ca.mean,
        alone=configuration.changes.keys() <= {path},
        chosen=configuration is findings.chosen,
    )


def draw_knobs(info: KnobsInfo) -> go.Figure:
    """Draw the figure: in each band a row of ASR, if an attack is known, above a row of CA."""
    columns, rates = min(PER_BAND, len(info.panels)), info.rates
    rows = len(rates) * -(-len(info.panels) // PER_BAND)
    inner = rows * ROW_PX + (rows - 1) * GAP_PX
    figure = make_subplots(rows=rows, cols=columns, horizontal_spacing=0.05, vertical_spacing=GAP_PX / inner)
    layout = base.blank(height=inner + 120 + GAP_PX)
    figure.update_layout(layout)
    figure.update_layout(margin={"t": 80, "b": 40 + GAP_PX}, legend={"y": 1 + 24 / inner})
    ranges = [base.rate_range(_known(info, rate)) for _, rate in rates]
    traces, axes = list[go.Scatter](), dict[str, object]()
    for position, panel in enumerate(info.panels):
        band, column = divmod(position, columns)
        for at, (name, rate) in enumerate(rates):
            place = (len(rates) * band + at) * columns + column + 1
            number = str(place) if place > 1 else ""  # as Plotly numbers the axes of `make_subplots`
            named = {"title": _title(panel)} if at == len(rates) - 1 else {}
            beside = {"title": name} if column == 0 else {"showticklabels": False}
            axes[f"xaxis{number}"] = _axis(panel) | named
            axes[f"yaxis{number}"] = {"tickformat": base.PERCENT, "range": ranges[at], **beside}
            traces += [trace.update(xaxis=f"x{number}", yaxis=f"y{number}") for trace in _traces(panel, rate)]
    # All at once: Plotly looks through the whole figure each time that it is given something.
    figure.update_layout(axes)
    figure.add_traces(traces)
    _legend(figure, info)
    return figure


def _known(info: KnobsInfo, rate: Callable[[KnobPoint], float | None]) -> list[float]:
    return [found for panel in info.panels for point in panel.points if (found := rate(point)) is not None]


def _title(panel: KnobPanel) -> dict[str, object]:
    lines = textwrap.wrap(base.plain(panel.title).replace("_", "_ "), 24)
    return {"text": "<br>".join(lines).replace("_ ", "_"), "standoff": 6}


def _axis(panel: KnobPanel) -> dict[str, object]:
    if panel.scale == "category":
        named = {"tickvals": panel.values, "ticktext": [_cut(str(value)) for value in panel.values]}
        return {"type": "category", "categoryorder": "array", "categoryarray": panel.values, **named, **_SMALL}
    if len(panel.values) > LABELLED_VALUES and panel.scale == "log":
        ticks = log_ticks([value for value in panel.values if isinstance(value, float)])
        return {"type": "log", "tickvals": ticks, "ticktext": [setting_text(tick) for tick in ticks], **_SMALL}
    if len(panel.values) > LABELLED_VALUES:
        return {"type": panel.scale, "nticks": 4, **_SMALL}
    labels = [setting_text(value) for value in panel.values]
    return {"type": panel.scale, "tickvals": panel.values, "ticktext": labels, **_SMALL}


def log_ticks(values: Sequence[float]) -> list[float]:
    """Return numbers that read well, at most about five, between the ends of positive values."""
    low, high = min(values), max(values)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1, 2, 5), (1, 3), (1,)):
        ticks = [float(f"{step}e{decade}") for decade in decades for step in steps]
        shown = [tick for tick in ticks if low <= tick <= high]
        if len(shown) <= MOST_TICKS:
            return shown
    return shown[:: -(-len(shown) // MOST_TICKS)]


_SMALL: dict[str, object] = {"tickfont": {"size": 11}, "automargin": False}


def _cut(word: str) -> str:
    return word if len(word) <= LABEL_LETTERS else f"{word[: LABEL_LETTERS - 1]}…"


def _traces(panel: KnobPanel, rate: Callable[[KnobPoint], float | None]) -> list[go.Scatter]:
    alone = [point for point in panel.points if point.alone]
    mode = "markers" if panel.scale == "category" or len(alone) < 2 else "lines+markers"
    medians = panel.medians(rate)
    line = go.Scatter(
        x=[value for value, _ in medians],
        y=[found for _, found in medians],
        mode="markers" if panel.scale == "category" else "lines+markers",
        marker=MEDIANS.marker,
        line={"color": MEDIANS.colour, "width": 2},
        hovertemplate="median %{y:.1%}<extra></extra>",
        showlegend=False,
    )
    return [
        _marks(panel.dots, rate, "markers", OTHERS),
        line,
        _marks(alone, rate, mode, ALONE),
        _marks([point for point in panel.points if point.chosen], rate, "markers", CHOSEN),
    ]


@dataclass(frozen=True)
class Look:
    """What marks of one kind look like, and what the legend calls them."""

    name: str
    colour: str
    size: int
    symbol: str
    opacity: float = 1.0

    @property
    def marker(self) -> dict[str, object]:
        """Return it as Plotly has markers."""
        return {"color": self.colour, "size": self.size, "symbol": self.symbol, "opacity": self.opacity}


OTHERS = Look("configurations", base.OTHER, 6, "circle", opacity=0.5)
MEDIANS = Look("median", base.FRONT, 7, "line-ew-open")
ALONE = Look("the base with only this knob changed", base.BASE, 7, "diamond")
CHOSEN = Look("chosen", base.CHOSEN, 13, "star")


def _marks(points: Sequence[KnobPoint], rate: Callable[[KnobPoint], float | None], mode: str, look: Look) -> go.Scatter:
    return go.Scatter(
        x=[point.value for point in points],
        y=[rate(point) for point in points],
        mode=mode,
        marker=look.marker,
        line={"color": look.colour, "width": 1.5},
        text=[_hover(point) for point in points],
        customdata=[point.name for point in points],
        hovertemplate="%{text}<extra></extra>",
        showlegend=False,
    )


def _hover(point: KnobPoint) -> str:
    attacked = "" if point.asr is None else f"ASR {percent(point.asr)}, "
    return f"{point.title}<br>{attacked}CA {percent(point.ca)}"


def _legend(figure: go.Figure, info: KnobsInfo) -> None:
    points = [point for panel in info.panels for point in panel.points]
    shown = (
        (OTHERS, any(not point.alone for point in points)),
        (MEDIANS, any(panel.medians(lambda point: point.ca) for panel in info.panels)),
        (ALONE, any(point.alone for point in points)),
        (CHOSEN, any(point.chosen for point in points)),
    )
    add_legend(figure, [look for look, present in shown if present])


def add_legend(figure: go.Figure, looks: Iterable[Look]) -> None:
    """Add a line to the legend for each look, also where the first panel has no such mark."""
    for look in looks:
        figure.add_trace(go.Scatter(x=[None], y=[None], mode="markers", marker=look.marker, name=look.name))
