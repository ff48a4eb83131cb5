"""Figures as papers print them: of a run's artifacts, as PNG and PDF and in the report. `PAPER_FIGURES` lists them."""

from analysis.paper.figures import PAPER_FIGURES, PaperFigure
from analysis.paper.files import Written, write_figures

__all__ = ["PAPER_FIGURES", "PaperFigure", "Written", "write_figures"]
