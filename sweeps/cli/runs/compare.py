"""`ubt compare`: several runs in one report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from sweeps.cli.options import HereOption, JsonOption


def compare(
    run_folders: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN RUN...", help="Run folders or addresses; the first is what others are held against."
        ),
    ],
    out: Annotated[Path, HereOption("Folder of the page and its tables.")] = Path("compared"),
    as_json: JsonOption = False,
) -> None:
    """Hold several runs against each other: fronts, choices, hypervolume by device time, effects, what differs."""
    from analysis import compare_runs  # noqa: PLC0415

    compared = compare_runs(*run_folders)
    page = compared.write(out)
    if as_json:
        tables = {"runs": compared.runs, "settings": compared.settings}
        tables |= {"effects": compared.effects, "defenses": compared.defenses}
        rows = {name: json.loads(table.to_json(orient="records")) for name, table in tables.items()}
        print(json.dumps({**rows, "notes": compared.notes, "page": str(page)}))
    else:
        print(f"{compared.markdown}\n{page}")
