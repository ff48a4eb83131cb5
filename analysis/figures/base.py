"""What every figure shares: the palette, the neutral layout, and how a figure says that it is absent.

A figure is two functions: one works out what to show (and is tested on that), one draws it. Backgrounds
are transparent and text is a mid grey, so that a figure stands on light and dark pages alike.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from html import escape

import plotly.graph_objects as go

from analysis.configurations import Configuration
from analysis.findings import Findings
from analysis.formatting import changes_text, count, listed, short_names

# Okabe and Ito's colours, told apart by all common kinds of colour vision; black gives way to greys.
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
HOVER_CHANGES = 8


@dataclass(frozen=True)
class Absent:
    """A figure that cannot be drawn from this run, and why, in one sentence."""

    why: str


def nothing_measured(findings: Findings) -> Absent:
    """Return the absence of a figure that needs a measured trial."""
    states = Counter(record.state.lower() for record in findings.run.records)
    told = listed(f"{number:,} {state}" for state, number in states.items())
    return Absent(f"No trial of this run has been measured yet ({told}).")


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


def plain(text: str) -> str:
    """Return text such that plotly, which reads some HTML everywhere, shows it as it is."""
    return escape(text, quote=False)


def hover_title(configuration: Configuration, findings: Findings) -> str:
    """Return a configuration's name and changes as the few HTML tags that plotly knows; text is escaped."""
    names = short_names(findings.run.settings)
    lines = changes_text(configuration.changes, names)
    more = len(lines) - HOVER_CHANGES
    shown = lines[:HOVER_CHANGES] + ((f"… and {more} more",) if more > 0 else ())
    seeds = len(configuration.measured)
    title = configuration.name + (f" (mean of {count(seeds, 'seed')})" if seeds > 1 else "")
    return f"<b>{plain(title)}</b><br>" + "<br>".join(map(plain, shown))
