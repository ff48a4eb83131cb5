"""How figures for papers look (column widths, fonts, colours), and how they become files: undated, the same every time.

matplotlib is loaded when one is drawn.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib import import_module
from io import BytesIO
from textwrap import fill
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMN_INCHES, PAGE_INCHES = 3.3, 6.9
"""Widths of one column and of the text of a two-column paper."""
PER_BAND = 4
"""Panels side by side; more continue in a further band."""
TITLE_LETTERS = 26
SMALL_POINTS, FONT_POINTS = 7, 8

Format = Literal["png", "pdf", "svg"]
DOTS_PER_INCH, NOTEBOOK_DOTS_PER_INCH = 300, 160
UNDATED: dict[Format, dict[str, None]] = {"png": {}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}

# Okabe and Ito's red and green differ under all common kinds of colour vision; hatches and dashes say it again.
POISONED, CLEAN = "#D55E00", "#009E73"
METHOD, INK, SOFT, RULE = "#0072B2", "#1D2025", "#6D727C", "#C9CCD1"

STYLE: dict[str, object] = {
    "font.family": "STIXGeneral",  # comes with matplotlib: the same letters on every machine
    "mathtext.fontset": "stix",
    "text.parse_math": False,  # a dollar in a caption or a name is a dollar
    "font.size": FONT_POINTS,
    "axes.titlesize": FONT_POINTS,
    "axes.labelsize": FONT_POINTS,
    "xtick.labelsize": SMALL_POINTS,
    "ytick.labelsize": SMALL_POINTS,
    "legend.fontsize": FONT_POINTS,
    "legend.frameon": False,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": SOFT,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "hatch.linewidth": 0.4,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "pdf.fonttype": 42,  # whole TrueType fonts, which publishers ask for
    "svg.fonttype": "path",
    "svg.hashsalt": "ubt",  # the same figure, the same bytes
}


@contextmanager
def paper_style() -> Iterator[None]:
    """Draw in the style of papers within this context, and leave matplotlib's own settings as they were."""
    with _matplotlib().rc_context(STYLE):
        yield


def _matplotlib() -> Any:  # noqa: ANN401 — a module, whose stubs list every known name of a style
    """Return matplotlib, also where $MPLBACKEND names a backend that this process does not have.

    A notebook sets it to one of its own, which every process that is started there inherits; importing matplotlib
    then fails. No figure here needs a backend; for figures of others the variable holds, if it can.
    """
    if "matplotlib" not in sys.modules and (asked := os.environ.pop("MPLBACKEND", "")):
        try:
            import matplotlib as mpl  # noqa: PLC0415
        finally:
            os.environ["MPLBACKEND"] = asked
        with suppress(ValueError, ImportError):
            mpl.rcParams["backend"] = asked
    return import_module("matplotlib")


def load() -> None:
    """Load matplotlib with what writes its files, which takes a second that the first figure would."""
    _matplotlib()
    for name in ("figure", "backends.backend_agg", "backends.backend_svg"):
        import_module(f"matplotlib.{name}")


def blank(width_inches: float, height_inches: float) -> Figure:
    """Return an empty figure, which belongs to no window: nothing has to be closed. A notebook shows it."""
    return _figure_class()(figsize=(width_inches, height_inches), layout="constrained")


@cache
def _figure_class() -> type[Figure]:
    from matplotlib.figure import Figure  # noqa: PLC0415

    class PaperPage(Figure):
        """A figure that shows itself in a notebook, with any backend of matplotlib."""

        def _repr_png_(self) -> bytes:
            with paper_style():
                return rendered(self, "png", dots_per_inch=NOTEBOOK_DOTS_PER_INCH)["png"]

    return PaperPage


def rendered(figure: Figure, *formats: Format, dots_per_inch: int = DOTS_PER_INCH) -> dict[Format, bytes]:
    """Return a figure in each format, without dates in it; to be called in the style it was drawn in."""
    contents: dict[Format, bytes] = {}
    for ending in formats:
        file = BytesIO()
        figure.savefig(file, format=ending, dpi=dots_per_inch, metadata=UNDATED[ending])
        contents[ending] = file.getvalue()
    return contents


def entitle(axes: Axes, title: str, bold: bool = False) -> None:
    """Write a panel's title above it, in lines as wide as the narrowest panels."""
    axes.set_title(fill(title, TITLE_LETTERS), pad=4, weight="bold" if bold else "normal")


def bands(columns: int) -> tuple[int, int]:
    """Return (bands, panels in each) for so many columns, filled evenly: 5 are 3 and 2, not 4 and 1."""
    rows = -(-columns // PER_BAND)
    return rows, -(-columns // rows)
