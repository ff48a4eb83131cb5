"""Density of pair similarity, poisoned and clean apart, and the panel it is drawn in: what figures 3 and 4 show."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from analysis.paper import style
from ubt.common.statistics import auroc

Values = NDArray[np.float64]

BINS = 512
LEAST_BANDWIDTH = 0.01
"""Equal similarities, or a single one, are drawn as a narrow peak."""


@dataclass(frozen=True)
class Separation:
    """Cosine similarities of pairs under one model, in [−1, 1]."""

    similarities: Values
    """`[S]`."""
    poisoned: NDArray[np.bool_]
    """`[S]`: which of the pairs are poisoned."""
    before: Values | None = None
    """`[S]`: the same pairs under the poisoned model, before anything was trained."""
    remark: str = ""
    """What else stands in the panel."""

    @cached_property
    def auroc(self) -> float:
        """Return how well high similarity separates poison from the rest (AUROC); NaN if one of them is empty."""
        return float(auroc(self.similarities, self.poisoned))

    @property
    def auroc_before(self) -> float | None:
        """Return the same under the poisoned model, where that is known."""
        return None if self.before is None else auroc(self.before, self.poisoned)


def density(values: Values) -> tuple[Values, Values]:
    """Return a kernel density estimate of similarities: the grid `[512]` over [−1, 1] and the density there.

    Gaussian kernels of Silverman's bandwidth (1986, eq. 3.31) on binned values, reflected at −1 and 1, so that the
    density integrates to 1 over what similarities there can be. Any number of values will do, from one.

    Raises:
        ValueError: if there are no values.
    """
    from scipy.ndimage import gaussian_filter1d  # noqa: PLC0415 — slow to import

    counts, edges = np.histogram(np.clip(values, -1.0, 1.0), bins=BINS, range=(-1.0, 1.0))
    width = 2.0 / BINS
    smooth = gaussian_filter1d(counts.astype(np.float64), bandwidth(values) / width, mode="reflect", truncate=6.0)
    return (edges[:-1] + edges[1:]) / 2, smooth / (len(values) * width)


def bandwidth(values: Values) -> float:
    """Return Silverman's bandwidth, 0.9 · min(standard deviation, interquartile range / 1.34) · S^(−1/5).

    Raises:
        ValueError: if there are no values.
    """
    if len(values) == 0:
        raise ValueError("no values to estimate a density from")
    if len(values) == 1:
        return LEAST_BANDWIDTH
    low, high = np.percentile(values, (25, 75))
    spreads = [spread for spread in (float(np.std(values, ddof=1)), float(high - low) / 1.34) if spread > 0]
    return max(LEAST_BANDWIDTH, 0.9 * min(spreads, default=0.0) * math.pow(len(values), -0.2))


def panel_lines(separation: Separation) -> tuple[str, ...]:
    """Return the lines that stand in a panel: the AUROC, others to compare it with, and how many pairs there are."""
    before, poisoned = separation.auroc_before, int(separation.poisoned.sum())
    pairs = (f"{poisoned:,} poisoned", f"{len(separation.poisoned) - poisoned:,} clean")
    if math.isnan(separation.auroc):
        return ("of one kind: no AUROC", *pairs)
    others = ("" if before is None else f"({before:.3f} before)", separation.remark)
    return (f"AUROC {separation.auroc:.3f}", *filter(None, others), *pairs)


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

LINE_POINTS = 8.6
VISIBLE = 2e-3
"""Part of the highest density below which nothing would be seen of it."""


@dataclass(frozen=True)
class Group:
    """How pairs of one kind are drawn."""

    name: str
    colour: str
    dashes: Literal["solid"] | tuple[float, tuple[float, ...]]
    hatch: str


CLEAN = Group("clean pairs", style.CLEAN, (0, (3.2, 1.4)), "")
POISONED = Group("poisoned pairs", style.POISONED, "solid", "//////")


def draw_separation(axes: Axes, separation: Separation) -> None:
    """Draw both densities over −1 … 1, and in numbers how far they are apart."""
    _draw_density(axes, separation.similarities[~separation.poisoned], CLEAN)
    _draw_density(axes, separation.similarities[separation.poisoned], POISONED)
    axes.set(xlim=(-1, 1), xticks=(-1, -0.5, 0, 0.5, 1), yticks=())
    axes.set_xticklabels(("−1", "", "0", "", "1"))
    axes.set_ylim(0, axes.get_ylim()[1])
    axes.spines["left"].set_visible(False)
    for number, line in enumerate(panel_lines(separation)):
        axes.annotate(
            line,
            (0.02, 0.98),
            xycoords="axes fraction",
            xytext=(0, -LINE_POINTS * number),
            textcoords="offset points",
            va="top",
            fontsize=style.FONT_POINTS if number == 0 else style.SMALL_POINTS,
            color=style.INK if number == 0 else style.SOFT,
        )


def draw_legend(figure: Figure) -> None:
    """Draw one legend for all panels, above them."""
    figure.legend(handles=[_key(POISONED), _key(CLEAN)], loc="outside upper center", ncols=2)


def _draw_density(axes: Axes, values: Values, group: Group) -> None:
    if len(values) == 0:
        return
    grid, heights = density(values)
    seen = heights > VISIBLE * heights.max()
    first, last = int(seen.argmax()), len(seen) - int(seen[::-1].argmax())
    grid, heights = grid[first:last], heights[first:last]
    axes.fill_between(grid, heights, color=group.colour, alpha=0.16, linewidth=0)
    if group.hatch:
        axes.fill_between(
            grid, heights, facecolor="none", edgecolor=group.colour, alpha=0.45, hatch=group.hatch, linewidth=0
        )
    axes.plot(grid, heights, color=group.colour, linewidth=1.1, linestyle=group.dashes, zorder=3)


def _key(group: Group) -> Patch:
    from matplotlib.colors import to_rgba  # noqa: PLC0415
    from matplotlib.patches import Patch  # noqa: PLC0415

    return Patch(
        facecolor=to_rgba(group.colour, 0.16),
        edgecolor=group.colour,
        linestyle=group.dashes,
        linewidth=1.0,
        hatch=group.hatch,
        label=group.name,
    )
