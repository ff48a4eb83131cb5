"""The figures for papers. A new one is one file, and one row here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from analysis.artifacts import Artifacts
from analysis.figures.base import Absent
from analysis.findings import Findings
from analysis.paper.captions import captions_info, draw_captions
from analysis.paper.defenses import defenses_info, draw_defenses
from analysis.paper.separation import draw_overfit_data, draw_similarity, overfit_data_info, similarity_info

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class PaperInfo(Protocol):
    """What a figure shows, worked out; and what is missing from it, one sentence each."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Return what is missing."""


Info = TypeVar("Info", bound=PaperInfo)


@dataclass(frozen=True)
class PaperFigure(Generic[Info]):
    """A figure: its file name, what it is called, what its reader should know, how it is worked out and drawn."""

    name: str
    title: str
    caption: str
    info: Callable[[Findings, Artifacts], Info | Absent]
    draw: Callable[[Info], Figure]


PAPER_FIGURES: tuple[PaperFigure[Any], ...] = (
    PaperFigure(
        "figure3",
        "Pair similarity under UBT and ABL",
        "Density of the cosine similarity of image and caption, poisoned and clean pairs each to an area of 1. "
        "UBT: the suspicious pairs under the overfitted model; ABL: all training pairs under the model that "
        "isolates them. AUROC: the chance that a poisoned pair is more similar than a clean one; in brackets that "
        "before overfitting, and that of the sign which ABL isolates by.",
        similarity_info,
        draw_similarity,
    ),
    PaperFigure(
        "figure4",
        "Overfitting to the suspects only, and to all pairs",
        "As above, of the pairs that the model was overfitted to: the suspicious ones only, or the whole training set.",
        overfit_data_info,
        draw_overfit_data,
    ),
    PaperFigure(
        "figure5",
        "What is unlearned of a caption",
        "Captions of selected pairs, the most telling first, with their tokens shaded by relevance. Outlined tokens "
        "lie above the threshold: they, with the image, are what is unlearned.",
        captions_info,
        draw_captions,
    ),
    PaperFigure(
        "comparison",
        "Defenses compared",
        "Attack success rate (lower is better) and clean accuracy (higher is better) on the test split: means over "
        "seeds, with 95% intervals.",
        defenses_info,
        draw_defenses,
    ),
)
