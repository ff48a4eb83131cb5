"""The data of a figure as a table: what each of its traces shows, point by point."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
import plotly.graph_objects as go

COLUMNS = ("trace", "split", "axes", "trial", "x", "y", "z")


def figure_table(figure: go.Figure) -> pd.DataFrame:
    """Return one line a point: `trace` (as the legend calls it), `split`, `axes` (which panel), `trial`, `x`, `y`, `z`.

    Columns that a figure has nothing for are left out.
    """
    titles = _titles(figure)
    lines = [line for trace in figure.data for line in _points(trace, titles)]
    table = pd.DataFrame(lines, columns=list(COLUMNS))
    return table.dropna(axis="columns", how="all")


def _titles(figure: go.Figure) -> dict[str, str]:
    """Return axis → its title, as `x2` → `unlearn_samples`; the name of the axis where it has none."""
    axes = [*figure.select_xaxes(), *figure.select_yaxes()]
    named = {axis.plotly_name.replace("axis", ""): (axis.title.text or "").replace("<br>", "") for axis in axes}
    return {name: title or name for name, title in named.items()}


def _points(trace: go.Scatter | go.Bar | go.Heatmap, titles: dict[str, str]) -> Iterator[tuple[object, ...]]:
    xaxis, yaxis = getattr(trace, "xaxis", None) or "x", getattr(trace, "yaxis", None) or "y"
    panel = f"{titles.get(yaxis, yaxis)} by {titles.get(xaxis, xaxis)}"
    split = (trace.meta or {}).get("split")
    about = (trace.name, split, panel)
    z = getattr(trace, "z", None)
    if z is not None:
        yield from (
            (*about, None, across, up, value)
            for up, row in zip(trace.y, z, strict=True)
            for across, value in zip(trace.x, row, strict=True)
        )
        return
    trials = getattr(trace, "customdata", None)
    xs, ys = getattr(trace, "x", None), getattr(trace, "y", None)
    if xs is None or ys is None:  # a kind of trace that has no points in a plane
        return
    names = trials if trials is not None else [None] * len(xs)
    for name, x, y in zip(names, xs, ys, strict=True):
        if x is not None or y is not None:
            yield (*about, name or None, x, y, None)
