"""What every figure shares: the palette, the neutral layout, and how a figure says that it is absent.

A figure is two functions: one works out what to show (and is tested on that), one draws it. Backgrounds
are transparent and text is a mid grey, so that a figure stands on light and dark pages alike.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from html import escape
from typing import Generic, TypeVar

import plotly.graph_objects as go

from analysis.findings import Findings
from analysis.formatting import changes_text, count, listed
from analysis.points.configurations import Configuration

_log = logging.getLogger(__name__)

# Okabe and Ito's colours differ under all common kinds of colour vision; black gives way to greys.
FRONT = "#0072B2"
CHOSEN = "#009E73"
POISONED = "#D55E00"
BASE = "#E69F00"
OTHER = "#8C919B"
INK = "#7B808A"
GRID = "rgba(128, 134, 145, 0.22)"

ASR_AXIS = "attack success rate"
CA_AXIS = "clean accuracy"
PERCENT = "~%"
"""As many decimals as the ticks of an axis need, in d3's notation."""
HOVER_CHANGES = 6


@dataclass(frozen=True)
class Absent:
    """A figure that cannot be drawn from this run, and why, in one sentence."""

    why: str


Info = TypeVar("Info")


@dataclass(frozen=True)
class FigureKind(Generic[Info]):
    """A figure: what it is called, what its reader should know, how it is worked out and drawn.

    Working out and drawing are apart so that the first can be tested on what it found.

    Example:
        A figure of another distribution, named by `[project.entry-points."ubt.figures"] seeds = "my_package:SEEDS"`:

        >>> SEEDS = FigureKind(
        ...     name="seeds",
        ...     title="Seeds",
        ...     caption="How many seeds each configuration was measured with.",
        ...     info=lambda findings: [len(one.measured) for one in findings.measured],
        ...     draw=lambda counts: go.Figure(go.Bar(y=counts), layout=blank(height=320)),
        ... )
    """

    name: str
    """By which it is found: letters and hyphens."""
    title: str
    caption: str
    info: Callable[[Findings], Info | Absent]
    """Works out what to show; absent, with the reason, where a run has nothing to show."""
    draw: Callable[[Info], go.Figure]

    @property
    def module(self) -> str:
        """Name of the module that draws it."""
        return self.draw.__module__

    def figure(self, findings: Findings) -> go.Figure | Absent:
        """Return the figure of a run, or why there is none."""
        info = self.info(findings)
        return info if isinstance(info, Absent) else self.draw(info)


Drawn = TypeVar("Drawn")


def attempt(name: str, draw: Callable[[], Drawn]) -> Drawn | Absent:
    """Return what `draw` returns; if it raises anything, the figure is absent, with the error as the reason.

    A figure never costs a report, least of all one of another distribution.
    """
    try:
        return draw()
    except Exception as error:  # noqa: BLE001 — a figure of another distribution may raise anything
        _log.error("the figure `%s` could not be drawn: %s: %s", name, type(error).__name__, error)
        _log.debug("where drawing `%s` failed", name, exc_info=True)
        return Absent(f"It could not be drawn: {type(error).__name__}: {error}.")


def nothing_measured(findings: Findings) -> Absent:
    """Return the absence of a figure that needs a measured trial."""
    states = Counter(record.state.lower() for record in findings.run.records)
    found = listed(f"{number:,} {state}" for state, number in states.items())
    return Absent(f"No trial of this run has been measured yet ({found}).")


def no_attack_known() -> Absent:
    """Return the absence of a figure of attack success rates."""
    return Absent("No attack is known, so there is no attack success rate to show.")


def blank(height: int) -> go.Layout:
    """Return the layout that every figure starts from, `height` pixels high."""
    axis = {
        "gridcolor": GRID,
        "zeroline": False,
        "linecolor": GRID,
        "ticks": "outside",
        "tickcolor": GRID,
        "automargin": True,
    }
    return go.Layout(
        template={"layout": {"xaxis": axis, "yaxis": axis}},
        height=height,
        font={"family": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", "size": 13, "color": INK},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        margin={"l": 64, "r": 16, "t": 48, "b": 56},
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        hoverlabel={
            "bgcolor": "#23272F",
            "bordercolor": "#23272F",
            "font": {"color": "#F4F5F7"},
            "align": "left",
        },
        hovermode="closest",
    )


def rate_range(rates: Iterable[float]) -> tuple[float, float]:
    """Return the ends of an axis that shows rates with some space around them: never below 0 nor above 100 %."""
    known = tuple(rates) or (0.0, 1.0)
    low, high = min(known), max(known)
    space = max(0.08 * (high - low), 0.02)
    return max(-0.03, low - space), min(1.03, high + space)


def plain(text: str) -> str:
    """Return text such that plotly, which reads some HTML everywhere, shows it as it is."""
    return escape(text, quote=False)


def hover_title(configuration: Configuration, findings: Findings) -> str:
    """Return a configuration's name and changes as the few HTML tags that plotly knows; text is escaped."""
    if id(configuration) not in findings.titles:
        findings.titles[id(configuration)] = configuration, _hover_title(configuration, findings)
    return findings.titles[id(configuration)][1]


def _hover_title(configuration: Configuration, findings: Findings) -> str:
    lines = changes_text(configuration.changes, findings.run.setting_names)
    more = len(lines) - HOVER_CHANGES
    shown = lines[:HOVER_CHANGES] + ((f"… and {more} more",) if more > 0 else ())
    seeds = len(configuration.measured)
    title = configuration.title + (f" (mean of {count(seeds, 'seed')})" if seeds > 1 else "")
    return f"<b>{plain(title)}</b><br>" + "<br>".join(map(plain, shown))
