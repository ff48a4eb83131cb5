"""Figures as papers print them, drawn from a run's artifacts: as PNG and PDF, in the report, and in a notebook.

A new one is one file, and one row in `PAPER_FIGURES`.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from analysis.figures.base import Absent, attempt
from analysis.findings import Findings, find
from analysis.paper.artifacts import Artifacts
from analysis.paper.captions import captions_info, draw_captions
from analysis.paper.defenses import defenses_info, draw_defenses
from analysis.paper.examples import draw_examples, examples_info
from analysis.paper.separation import draw_overfit_data, draw_similarity, overfit_data_info, similarity_info
from analysis.paper.style import Format, paper_style, rendered
from analysis.records import PARTS, read_run
from ubt.artifacts.remote_folder import at_hand
from ubt.common.atomic_files import write_whole
from ubt.common.paths import FIGURES_FOLDER

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
        "examples",
        "Poisoned pairs, before and after",
        "Some of the training pairs that the attacker replaced: the image and its caption as they were, and below them "
        "what is trained on, with the trigger and a caption that names the target.",
        examples_info,
        draw_examples,
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


def paper_figure(kind: PaperFigure[Any], findings: Findings) -> Figure | Absent:
    """Return one figure of a run, or why there is none."""
    info = kind.info(findings, Artifacts.of(findings.run))
    if isinstance(info, Absent):
        return info
    with paper_style():
        return kind.draw(info)


@dataclass(frozen=True)
class Written:
    """What came of one figure."""

    name: str
    files: tuple[Path, ...]
    """The PNG and the PDF; none if the figure is absent."""
    notes: tuple[str, ...]
    """Why it is absent, or what is missing from it."""


def write_figures(run_folder: Path | str, folder: Path | None = None) -> tuple[Written, ...]:
    """Write every figure for papers that a run has the trials for, as PNG and PDF, into `folder` (`<run>/figures`).

    Raises:
        UserError: if the folder is no run, or a record cannot be read.
        OSError: if a file cannot be written.

    Example:
        >>> for figure in write_figures("runs/separation"):  # doctest: +SKIP
        ...     print(figure.name, *figure.files, *figure.notes)
    """
    with at_hand(run_folder, PARTS, "" if folder else FIGURES_FOLDER) as run:
        return _written(find(read_run(run)), folder or run / FIGURES_FOLDER)


def _written(findings: Findings, folder: Path) -> tuple[Written, ...]:
    written = []
    artifacts = Artifacts.of(findings.run)
    for kind in PAPER_FIGURES:
        drawn = attempt(kind.name, partial(_as_files, kind, findings, artifacts))
        if isinstance(drawn, Absent):
            written.append(Written(kind.name, (), (drawn.why,)))
            continue
        contents, notes = drawn
        files = tuple(write_whole(folder / f"{kind.name}.{ending}", content) for ending, content in contents.items())
        written.append(Written(kind.name, files, notes))
    return tuple(written)


def _as_files(
    kind: PaperFigure[Any], findings: Findings, artifacts: Artifacts
) -> tuple[dict[Format, bytes], tuple[str, ...]] | Absent:
    info = kind.info(findings, artifacts)
    if isinstance(info, Absent):
        return info
    with paper_style():
        return rendered(kind.draw(info), "png", "pdf"), info.notes


@dataclass(frozen=True)
class Embedded:
    """A figure as an image in the page, or why there is none."""

    name: str
    title: str
    caption: str
    source: str
    """A data URI; "" if the figure is absent."""
    notes: tuple[str, ...]
    """Why it is absent, or what is missing from it."""


def embedded_figures(findings: Findings) -> tuple[Embedded, ...]:
    """Return every figure for papers, as far as the run has the trials and the store has the artifacts.

    One that cannot be drawn is absent: a figure never costs a report.
    """
    artifacts, found = attempt("figures of pairs", partial(Artifacts.of, findings.run)), []
    for kind in PAPER_FIGURES:
        figure: Embedded | Absent
        if isinstance(artifacts, Absent):
            figure = artifacts
        else:
            figure = attempt(kind.name, partial(_embedded, kind, findings, artifacts))
        if isinstance(figure, Absent):
            figure = Embedded(kind.name, kind.title, kind.caption, "", (figure.why,))
        found.append(figure)
    return tuple(found)


def _embedded(kind: PaperFigure[Any], findings: Findings, artifacts: Artifacts) -> Embedded | Absent:
    info = kind.info(findings, artifacts)
    if isinstance(info, Absent):
        return info
    with paper_style():
        svg = rendered(kind.draw(info), "svg")["svg"]
    source = f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}"
    return Embedded(kind.name, kind.title, kind.caption, source, info.notes)


__all__ = ["PAPER_FIGURES", "PaperFigure", "Written", "write_figures"]
