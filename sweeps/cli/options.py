"""What the commands share: their arguments and options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sweeps.study.loading import builtin_studies

DEFAULT_STORE = "$UBT_STORE, or else $UBT_CACHE, or else ~/.cache/ubt"


StudyArgument = Annotated[
    str, typer.Argument(help=f"A built-in study ({', '.join(builtin_studies())}) or a YAML file.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="Change a field, e.g. victim.attack.kind=sig."),
]
NameOption = Annotated[str | None, typer.Option(help="Name of the run; the study's own by default.")]
OutOption = Annotated[Path, typer.Option(help="Folder of run folders.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
RunArgument = Annotated[Path, typer.Argument(help="A run folder, e.g. runs/demo.")]
