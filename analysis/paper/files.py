"""Figures for papers as files: PDF for the paper, PNG to look at, SVG for the report; undated, the same every time."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from analysis.artifacts import Artifacts
from analysis.figures.base import Absent
from analysis.findings import Findings, find
from analysis.paper.figures import PAPER_FIGURES
from analysis.paper.style import paper_style
from analysis.run import load_run
from ubt.common.atomic_files import write_whole
from ubt.trials.paths import FIGURES_FOLDER

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Format = Literal["png", "pdf", "svg"]
DOTS_PER_INCH = 300
UNDATED: dict[Format, dict[str, None]] = {"png": {}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}


@dataclass(frozen=True)
class Written:
    """What came of one figure."""

    name: str
    files: tuple[Path, ...]
    """The PNG and the PDF; none if the figure is absent."""
    notes: tuple[str, ...]
    """Why it is absent, or what is missing from it."""


def write_figures(run_folder: Path | str, folder: Path | None = None) -> tuple[Written, ...]:
    """Write every figure that a run has the trials for, as PNG and PDF, into `folder` (`<run>/figures`).

    Raises:
        UserError: if the folder is no run, or a record cannot be read.
        OSError: if a file cannot be written.
    """
    findings = find(load_run(run_folder))
    artifacts, folder = Artifacts.of(findings.run), folder or Path(run_folder) / FIGURES_FOLDER
    written = []
    for kind in PAPER_FIGURES:
        info = kind.info(findings, artifacts)
        if isinstance(info, Absent):
            written.append(Written(kind.name, (), (info.why,)))
            continue
        with paper_style():
            contents = rendered(kind.draw(info), "png", "pdf")
        files = tuple(write_whole(folder / f"{kind.name}.{ending}", content) for ending, content in contents.items())
        written.append(Written(kind.name, files, info.notes))
    return tuple(written)


def rendered(figure: Figure, *formats: Format) -> dict[Format, bytes]:
    """Return a figure in each format, without dates in it; to be called in the style it was drawn in."""
    contents: dict[Format, bytes] = {}
    for ending in formats:
        file = BytesIO()
        figure.savefig(file, format=ending, dpi=DOTS_PER_INCH, metadata=UNDATED[ending])
        contents[ending] = file.getvalue()
    return contents


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
    """Return every figure for papers, as far as the run has the trials and the store has the artifacts."""
    artifacts = Artifacts.of(findings.run)
    found = []
    for kind in PAPER_FIGURES:
        info = kind.info(findings, artifacts)
        if isinstance(info, Absent):
            found.append(Embedded(kind.name, kind.title, kind.caption, "", (info.why,)))
            continue
        with paper_style():
            svg = rendered(kind.draw(info), "svg")["svg"]
        source = f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}"
        found.append(Embedded(kind.name, kind.title, kind.caption, source, info.notes))
    return tuple(found)
