"""Figure 5: captions of selected pairs, their tokens shaded by relevance, those above the threshold outlined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from pydantic import TypeAdapter, ValidationError

from analysis.figures.base import Absent
from analysis.findings import Findings
from analysis.formatting import listed
from analysis.paper import style
from analysis.paper.artifacts import ANEW, Artifacts, Unreadable, by_victim, has_stage, matching, poisoned_pairs
from analysis.tables import setting
from ubt.trials.record import TrialRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap, Normalize
    from matplotlib.figure import Figure

LINE_POINTS, BOX_POINTS, PADDING_POINTS, GAP_POINTS, MARK_POINTS = 14.5, 10.8, 1.8, 1.6, 11.0
AFTER_CAPTION_POINTS, MARGIN_POINTS = 2.5, 10.0
POINTS_PER_INCH = 72


@dataclass(frozen=True)
class Box:
    """One token where it stands: in points from the panel's upper left corner, `top` counted downwards."""

    text: str
    relevance: float
    left: float
    top: float
    width: float

    @property
    def right(self) -> float:
        """Return where it ends."""
        return self.left + self.width


def draw_captions(info: CaptionsInfo) -> Figure:
    """Draw the figure: one panel an attack, two side by side, and the scale of the shading below."""
    wide = _side_by_side(info)
    rows = -(-len(info.panels) // wide)
    width = style.COLUMN_INCHES if wide == 1 else style.PAGE_INCHES
    line = width / wide * POINTS_PER_INCH - MARGIN_POINTS
    heights = [max(_height(panel, line) for panel in info.panels[row * wide : (row + 1) * wide]) for row in range(rows)]
    figure = style.blank(width, sum(heights) / POINTS_PER_INCH + 0.24 * rows + 0.5)
    grid = figure.subplots(rows, wide, squeeze=False, height_ratios=heights)
    for axes in grid.flat:
        axes.set_axis_off()
    for number, panel in enumerate(info.panels):
        _draw_panel(grid.flat[number], panel, line, heights[number // wide], titled=len(info.panels) > 1)
    _draw_scale(figure, sorted({panel.threshold for panel in info.panels}), shrink=0.9 if wide == 1 else 0.5)
    return figure


def _side_by_side(info: CaptionsInfo) -> int:
    """Return how many panels stand beside each other: three if every caption fits into a third of the page."""
    longest = max(lay_out(caption, float("inf"))[0][-1].right for panel in info.panels for caption in panel.captions)
    fits = longest <= style.PAGE_INCHES / 3 * POINTS_PER_INCH - MARGIN_POINTS
    return min(3 if fits else 2, len(info.panels))


def lay_out(caption: Caption, line_points: float) -> tuple[list[Box], float]:
    """Return a caption's boxes, broken into lines of at most `line_points`, and the height of its lines."""
    boxes, left, top = [], MARK_POINTS, 0.0
    for text, relevance in caption.tokens:
        width = text_points(text) + 2 * PADDING_POINTS
        if left > MARK_POINTS and left + width > line_points:
            left, top = MARK_POINTS, top + LINE_POINTS
        boxes.append(Box(text, relevance, left, top, width))
        left += width + GAP_POINTS
    return boxes, top + LINE_POINTS


def text_points(text: str) -> float:
    """Return how wide a word is, in points."""
    from matplotlib.font_manager import FontProperties  # noqa: PLC0415
    from matplotlib.textpath import TextPath  # noqa: PLC0415

    if not text.strip():
        return 3.0
    font = FontProperties(family=str(style.STYLE["font.family"]))
    path = TextPath((0, 0), text, size=style.FONT_POINTS, prop=font)
    return float(path.get_extents().x1)


def _height(panel: CaptionPanel, line_points: float) -> float:
    return sum(lay_out(caption, line_points)[1] + AFTER_CAPTION_POINTS for caption in panel.captions)


def _draw_panel(axes: Axes, panel: CaptionPanel, line_points: float, height_points: float, titled: bool) -> None:
    axes.set(xlim=(0, line_points), ylim=(height_points, 0))
    if titled:
        axes.set_title(panel.attack, loc="left", pad=5, weight="bold")
    top = 0.0
    for caption in panel.captions:
        boxes, height = lay_out(caption, line_points)
        _draw_mark(axes, top + BOX_POINTS / 2, caption.poisoned)
        for box in boxes:
            _draw_box(axes, box, top, panel.threshold)
        top += height + AFTER_CAPTION_POINTS


def _draw_mark(axes: Axes, middle: float, poisoned: bool) -> None:
    colour, marker, fill = (style.POISONED, "s", style.POISONED) if poisoned else (style.CLEAN, "o", "white")
    axes.plot([3.5], [middle], marker, markersize=4.2, color=colour, markerfacecolor=fill, markeredgewidth=1.0)


def _draw_box(axes: Axes, box: Box, top: float, threshold: float) -> None:
    from matplotlib.patches import FancyBboxPatch  # noqa: PLC0415

    colours, scale = _shading()
    above = box.relevance > threshold
    axes.add_patch(
        FancyBboxPatch(
            (box.left, top + box.top),
            box.width,
            BOX_POINTS,
            boxstyle="round,pad=0,rounding_size=1.6",
            facecolor=colours(scale(box.relevance)),
            edgecolor=style.INK if above else "none",
            linewidth=0.8 if above else 0.0,
            clip_on=False,
        )
    )
    axes.text(
        box.left + box.width / 2,
        top + box.top + BOX_POINTS / 2 + 2.4,
        box.text,
        ha="center",
        va="baseline",
        color="white" if box.relevance > 0.75 else style.INK,
    )


def _shading() -> tuple[Colormap, Normalize]:
    """Return the colours of relevance 0 … 1; small ones are spread, as most tokens of a caption are."""
    from matplotlib.colors import LinearSegmentedColormap, PowerNorm  # noqa: PLC0415

    return LinearSegmentedColormap.from_list("relevance", ["#F6F5F2", "#F3C6A5", style.POISONED]), PowerNorm(0.6, 0, 1)


def _draw_scale(figure: Figure, thresholds: list[float], shrink: float) -> None:
    """Draw the shading's scale with the thresholds on it, and what the marks mean."""
    from matplotlib.cm import ScalarMappable  # noqa: PLC0415
    from matplotlib.lines import Line2D  # noqa: PLC0415

    colours, scale = _shading()
    bar = figure.colorbar(
        ScalarMappable(scale, colours), ax=figure.axes, location="bottom", shrink=shrink, aspect=45, pad=0.02
    )
    bar.set_ticks(sorted({0.0, *thresholds, 0.5, 1.0}))
    bar.ax.xaxis.set_major_formatter("{x:g}")
    bar.outline.set_visible(False)
    for solids in bar.ax.collections:
        solids.set(rasterized=False, edgecolor="face")
    for threshold in thresholds:
        bar.ax.axvline(threshold, color=style.INK, linewidth=1.2)
    bar.set_label(f"relevance of a token; outlined above {listed(f'{threshold:g}' for threshold in thresholds)}")
    poisoned = Line2D([], [], marker="s", linestyle="", markersize=4.2, color=style.POISONED, label="poisoned pair")
    clean = Line2D([], [], marker="o", linestyle="", markersize=4.2, color=style.CLEAN, label="clean pair", mfc="white")
    figure.legend(handles=[poisoned, clean], loc="outside upper center", ncols=2, handletextpad=0.2)


MOST_POISONED, MOST_CLEAN = 8, 4
"""Captions shown of each kind, the most telling first."""
MOST_PANELS = 4

_captions: TypeAdapter[list[list[tuple[str, float]]]] = TypeAdapter(list[list[tuple[str, float]]])


@dataclass(frozen=True)
class Caption:
    """One selected pair's caption: its tokens, each with its relevance; they sum to 1."""

    tokens: tuple[tuple[str, float], ...]
    poisoned: bool


@dataclass(frozen=True)
class CaptionPanel:
    """One attack."""

    attack: str
    captions: tuple[Caption, ...]
    threshold: float
    """Tokens of a higher relevance are unlearned."""


@dataclass(frozen=True)
class CaptionsInfo:
    """The panels, and what is missing from them, one sentence each."""

    panels: tuple[CaptionPanel, ...]
    notes: tuple[str, ...]


def captions_info(findings: Findings, artifacts: Artifacts) -> CaptionsInfo | Absent:
    """Work out the figure; absent without a finished trial that attributed relevance to tokens."""
    panels, notes = [], []
    for attack, (record,) in by_victim(findings, matching(findings, has_stage("attribute"))).items():
        try:
            panels += [_panel(attack, record, artifacts)] if record else []
        except Unreadable as why:
            notes.append(f"{why}.")
    if not panels:
        return Absent(" ".join(notes) or "It needs a finished trial of UBT (`defense.kind: ubt`).")
    if len(panels) > MOST_PANELS:
        notes.append(f"Shown are the first {MOST_PANELS} of {len(panels)} attacks.")
    return CaptionsInfo(tuple(panels[:MOST_PANELS]), tuple(notes))


def _panel(attack: str, record: TrialRecord, artifacts: Artifacts) -> CaptionPanel:
    attribute = artifacts.read(record, "attribute")
    try:
        captions = _captions.validate_python(attribute.fact("captions"))
    except ValidationError as error:
        raise Unreadable(f"{attribute.title}: its captions are not as this version reads them; {ANEW}") from error
    selected = artifacts.read(record, "select").tensor("indices")[: len(captions)]
    marks = np.isin(selected, poisoned_pairs(artifacts, record))
    found = [
        Caption(tuple((text.strip(), share) for text, share in tokens), bool(mark))
        for tokens, mark in zip(captions, marks, strict=False)
    ]
    threshold = setting(record, "defense.token_threshold")
    return CaptionPanel(attack, shown(found), threshold if isinstance(threshold, float) else 0.0)


def shown(captions: Sequence[Caption]) -> tuple[Caption, ...]:
    """Return the first few distinct captions of either kind, poisoned ones first."""
    distinct = {tuple(text for text, _ in caption.tokens): caption for caption in reversed(captions)}
    first = tuple(distinct.values())[::-1]
    poisoned = tuple(caption for caption in first if caption.poisoned)[:MOST_POISONED]
    return poisoned + tuple(caption for caption in first if not caption.poisoned)[:MOST_CLEAN]
