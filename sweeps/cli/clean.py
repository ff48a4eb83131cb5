"""`ubt clean`: from a suspicious checkpoint to a cleaned file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sweeps.cli.options import HereOption, SetOption
from ubt.common.ending import current
from ubt.common.exits import Ended

if TYPE_CHECKING:
    from sweeps.cleaning.checkpoint import CleanedModel


def clean(
    model: Annotated[str, typer.Option(help="Name of the model in open_clip, or tiny-rn.")],
    checkpoint: Annotated[Path, typer.Option(help="Weights of the suspicious model.")],
    pairs: Annotated[Path, typer.Option(help="CSV or TSV of the pairs that it was trained on: image, caption.")],
    out: Annotated[Path, HereOption("A new or empty folder, or one to go on with.")],
    reference_model: Annotated[
        str | None, typer.Option(metavar="TAG", help="Published weights of a clean model of that name, e.g. openai.")
    ] = None,
    reference_checkpoint: Annotated[Path | None, typer.Option(help="Or weights of a clean model in a file.")] = None,
    labels: Annotated[Path | None, typer.Option(help="Labelled images, to measure clean accuracy on.")] = None,
    classes: Annotated[str | None, typer.Option(help="Their classes: a file with one a line, or imagenet.")] = None,
    templates: Annotated[str | None, typer.Option(help="Prompts: a file, `openai` or `simple`.")] = None,
    settings: Annotated[str | None, typer.Option(metavar="RUN", help="Take the settings that a run chose.")] = None,
    assignments: SetOption = None,
    address: Annotated[str, typer.Option(help="`inline` (this process, no Ray), `local`, `auto`, …")] = "inline",
) -> None:
    """Clean a suspicious checkpoint without knowing the attack: the model as a file, and what was found."""
    from sweeps.cleaning.checkpoint import clean_checkpoint  # noqa: PLC0415
    from sweeps.cleaning.study import Request  # noqa: PLC0415

    given = Request(
        model=model,
        checkpoint=checkpoint,
        pairs=pairs,
        out=out,
        reference_model=reference_model,
        reference_checkpoint=reference_checkpoint,
        labels=labels,
        classes=classes,
        templates=templates,
        settings=settings,
        assignments=tuple(assignments or ()),
    )
    try:
        print(cleaned_text(clean_checkpoint(given, address)))
    except Ended as ended:
        print(current().farewell(ended.cause), file=sys.stderr)
        current().told = True
        raise typer.Exit(ended.cause.status) from ended


def cleaned_text(found: CleanedModel) -> str:
    """Return what a cleaning came to in words."""
    cleaned = found.cleaned
    rows = [
        f"  {row.name:<36}{cleaned.accuracy} {row.ca:.3f}  held {row.held_similarity:.3f}  drawn {row.alike:.3f}"
        for row in cleaned.models
    ]
    files = [f"  {path}" for path in (found.model, found.suspects, found.page)]
    return "\n".join(["", *rows, cleaned.conclusion, "", *files])
