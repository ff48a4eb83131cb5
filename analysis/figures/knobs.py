"""Each searched knob against both objectives: small multiples, one column a knob."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
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

Scale = Literal["linear", "log", "category"]


@dataclass(frozen=True)
class KnobPoint:
    """One configuration in a knob's panel; words are escaped for plotly."""

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

    @property
    def values(self) -> tuple[float | str, ...]:
        """Return the distinct values in order."""
        return tuple(dict.fromkeys(point.value for point in self.points))


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
        title=base.hover_title(configuration, findings),
        value=value,
        asr=val.asr.mean if val.asr else None,
        ca=val.ca.mean,
        alone=set(configuration.changes) <= {path},
        chosen=configuration is findings.chosen,
    )


def draw_knobs(info: KnobsInfo) -> go.Figure:
    """Draw the figure: in each band a row of ASR, if an attack is known, above a row of CA."""
    columns, rates = min(PER_BAND, len(info.panels)), info.rates
    rows = len(rates) * -(-len(info.panels) // PER_BAND)
    figure = make_subplots(rows=rows, cols=columns, horizontal_spacing=0.05, vertical_spacing=0.22 / rows)
    figure.update_layout(base.blank(height=210 * rows + 60))
    figure.update_yaxes(tickformat=base.PERCENT, matches=None)
    for position, panel in enumerate(info.panels):
        band, column = divmod(position, columns)
        _draw_panel(figure, panel, rates, len(rates) * band + 1, column + 1)
    _legend(figure, [point for panel in info.panels for point in panel.points])
    return figure


def _draw_panel(figure: go.Figure, panel: KnobPanel, rates: Rates, row: int, column: int) -> None:
    last = row + len(rates) - 1
    for place, (name, rate) in enumerate(rates, start=row):
        figure.add_traces(_traces(panel, [rate(point) for point in panel.points]), rows=place, cols=column)
        figure.update_xaxes(_axis(panel), row=place, col=column)
        figure.update_xaxes(showticklabels=place == last, row=place, col=column)
        if column == 1:
            figure.update_yaxes(title=name, row=place, col=column)
    figure.update_xaxes(title=base.plain(panel.title), row=last, col=column)


def _axis(panel: KnobPanel) -> dict[str, object]:
    if panel.scale == "category":
        return {"type": "category", "categoryorder": "array", "categoryarray": panel.values}
    if len(panel.values) > LABELLED_VALUES:
        return {"type": panel.scale}
    labels = [setting_text(value) for value in panel.values]
    return {"type": panel.scale, "tickvals": panel.values, "ticktext": labels, "tickfont": {"size": 11}}


def _traces(panel: KnobPanel, rates: list[float | None]) -> list[go.Scatter]:
    pairs = list(zip(panel.points, rates, strict=True))
    alone = [pair for pair in pairs if pair[0].alone]
    mode = "markers" if panel.scale == "category" or len(alone) < 2 else "lines+markers"
    return [
        _marks([pair for pair in pairs if not pair[0].alone], "markers", OTHERS),
        _marks(alone, mode, ALONE),
        _marks([pair for pair in pairs if pair[0].chosen], "markers", CHOSEN),
    ]


@dataclass(frozen=True)
class _Look:
    name: str
    colour: str
    size: int
    symbol: str
    opacity: float = 1.0

    @property
    def marker(self) -> dict[str, object]:
        return {"color": self.colour, "size": self.size, "symbol": self.symbol, "opacity": self.opacity}


OTHERS = _Look("trials", base.OTHER, 6, "circle", opacity=0.5)
ALONE = _Look("the base with only this knob changed", base.BASE, 7, "diamond")
CHOSEN = _Look("chosen", base.CHOSEN, 13, "star")


def _marks(pairs: list[tuple[KnobPoint, float | None]], mode: str, look: _Look) -> go.Scatter:
    return go.Scatter(
        x=[point.value for point, _ in pairs],
        y=[rate for _, rate in pairs],
        mode=mode,
        marker=look.marker,
        line={"color": look.colour, "width": 1.5},
        text=[_hover(point) for point, _ in pairs],
        hovertemplate="%{text}<extra></extra>",
        showlegend=False,
    )


def _hover(point: KnobPoint) -> str:
    attacked = "" if point.asr is None else f"ASR {percent(point.asr)}, "
    return f"{point.title}<br>{attacked}CA {percent(point.ca)}"


def _legend(figure: go.Figure, points: list[KnobPoint]) -> None:
    shown = (
        (OTHERS, any(not point.alone for point in points)),
        (ALONE, any(point.alone for point in points)),
        (CHOSEN, any(point.chosen for point in points)),
    )
    for look in (look for look, present in shown if present):
        figure.add_trace(go.Scatter(x=[None], y=[None], mode="markers", marker=look.marker, name=look.name))
