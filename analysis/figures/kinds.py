"""The figures there are. A new figure is one file, and one row here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import plotly.graph_objects as go

from analysis.figures.base import Absent
from analysis.figures.epochs import draw_epochs, epochs_info
from analysis.figures.front import draw_front, front_info
from analysis.figures.knobs import draw_knobs, knobs_info
from analysis.figures.stages import draw_stages, stages_info
from analysis.findings import Findings

Info = TypeVar("Info")


@dataclass(frozen=True)
class FigureKind(Generic[Info]):
    """A figure: what it is called, what its reader should know, how it is worked out and drawn."""

    name: str
    title: str
    caption: str
    info: Callable[[Findings], Info | Absent]
    draw: Callable[[Info], go.Figure]

    def figure(self, findings: Findings) -> go.Figure | Absent:
        """Return the figure of a run, or why there is none."""
        info = self.info(findings)
        return info if isinstance(info, Absent) else self.draw(info)


FIGURES: tuple[FigureKind[Any], ...] = (
    FigureKind(
        "front",
        "Clean accuracy against attack success",
        "Each dot is a configuration; up and to the left is better. The line joins the front: the "
        "configurations that no other betters in both. Front and choice are made on the validation split; "
        "the test split shows the same configurations on images that no decision has seen.",
        front_info,
        draw_front,
    ),
    FigureKind(
        "knobs",
        "What each knob does",
        "Validation rates of all configurations, by the value of each searched setting. Diamonds change that "
        "setting alone and leave the rest at the study's base.",
        knobs_info,
        draw_knobs,
    ),
    FigureKind(
        "epochs",
        "Epoch by epoch",
        "The model after each epoch of the defense, on validation, with its 95% Wilson interval. "
        "Of a configuration with several seeds, the first is shown.",
        epochs_info,
        draw_epochs,
    ),
    FigureKind(
        "stages",
        "Where the time went",
        "Stages with equal settings, seed and inputs are computed once and shared. Hatched: what the "
        "shared ones would have taken.",
        stages_info,
        draw_stages,
    ),
)
