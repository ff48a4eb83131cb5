"""`ubt figures` and `ubt table`: what a paper takes from a run. Neither needs Ray or torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sweeps.cli.options import Exit, RunArgument


def figures(
    run_folder: RunArgument,
    out: Annotated[Path | None, typer.Option(help="Folder of the figures; RUN/figures by default.")] = None,
) -> None:
    """Draw the paper's figures from a run's artifacts, as PNG and PDF."""
    from analysis import write_figures  # noqa: PLC0415

    written = write_figures(run_folder, out)
    for figure in written:
        for file in figure.files:
            print(file)
        for note in figure.notes:
            print(f"{figure.name}: {note}" if figure.files else f"{figure.name} is left out. {note}")
    raise typer.Exit(Exit.DONE if any(figure.files for figure in written) else Exit.SOME_FAILED)


def table(
    run_folder: RunArgument,
    as_csv: Annotated[bool, typer.Option("--csv", help="One line for each defense on each attack, as CSV.")] = False,
) -> None:
    """Print the defenses of a run over its attacks, as a Markdown table."""
    from analysis import load_run  # noqa: PLC0415
    from ubt.common.errors import Problem, UserError  # noqa: PLC0415

    run = load_run(run_folder)
    if run.comparison is None:
        advice = "`ubt sweep table` compares several; `ubt report` shows a run of one"
        raise UserError(Problem(str(run_folder), "has trials of a single defense, and so no table", advice=advice))
    print(run.comparison.to_csv(index=False) if as_csv else run.comparison_markdown, end="")
