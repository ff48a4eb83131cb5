"""What the commands share: their arguments and options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sweeps.study.builtin import builtin_studies

DEFAULT_STORE = "$UBT_STORE, or else $UBT_CACHE, or else ~/.cache/ubt"


StudyArgument = Annotated[
    str, typer.Argument(help=f"A built-in study ({', '.join(builtin_studies())}) or a YAML file.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="Change a field, e.g. victim.attack.kind=sig."),
]
NameOption = Annotated[str | None, typer.Option(help="Name of the run; the study's own by default.")]
OutOption = Annotated[str, typer.Option(help="Folder of run folders, or an address, e.g. s3://bucket/runs.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]


def _here(path: Path | None) -> Path | None:
    from ubt.artifacts.remote_folder import path_of  # noqa: PLC0415 — `ubt --help` needs none of it

    return None if path is None else path_of(path, "--out")


def HereOption(help: str) -> object:  # noqa: N802 — as typer calls its own
    """Return an option for a place that has to be on this machine."""
    return typer.Option(help=help, callback=_here)


RunArgument = Annotated[
    str, typer.Argument(help="A run folder, e.g. runs/demo, or its address, e.g. s3://bucket/runs/demo.")
]
