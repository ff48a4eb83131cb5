"""Figures of a run, each worked out (`*_info`) apart from being drawn (`draw_*`); `FIGURES` lists them."""

from analysis.figures.base import Absent
from analysis.figures.kinds import FIGURES, FigureKind

__all__ = ["FIGURES", "Absent", "FigureKind"]
