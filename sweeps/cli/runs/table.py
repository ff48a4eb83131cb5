"""`ubt table` and `ubt effects`: a run's tables, for a terminal or a paper."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from sweeps.cli.options import RunArgument
from ubt.common.errors import Problem, UserError


class TableFormat(StrEnum):
    """How a table is printed."""

    MARKDOWN = "markdown"
    LATEX = "latex"
    CSV = "csv"


class TableOf(StrEnum):
    """Which table of a run."""

    COMPARISON = "comparison"
    EFFECTS = "effects"
    FRONT = "front"


def table(
    run_folder: RunArgument,
    format: Annotated[
        TableFormat, typer.Option(help="latex: booktabs and siunitx; csv: with more digits and columns.")
    ] = TableFormat.MARKDOWN,
    of: Annotated[
        TableOf | None,
        typer.Option(help="By default defenses over attacks, an ablation's effects, or a search's front."),
    ] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="The same as --format csv.")] = False,
) -> None:
    """Print a run's table for a paper: with intervals, and with the command and the versions as comments."""
    from analysis.findings import find  # noqa: PLC0415
    from analysis.printed.output import as_latex, as_markdown, made_with  # noqa: PLC0415
    from analysis.printed.tables import printed_table  # noqa: PLC0415
    from analysis.records import read_run  # noqa: PLC0415

    run = read_run(run_folder)
    printed = printed_table(find(run), of.value if of else None)
    if as_csv or format is TableFormat.CSV:
        print(printed.csv, end="")
        return
    command = f"ubt table {run_folder} --format {format}" + (f" --of {of}" if of else "")
    write = as_latex if format is TableFormat.LATEX else as_markdown
    print(write(printed, made_with(run, command)), end="")


def effects(
    run_folder: RunArgument,
    as_csv: Annotated[bool, typer.Option("--csv", help="One line an effect, as CSV.")] = False,
    as_latex: Annotated[bool, typer.Option("--latex", help="As a LaTeX tabular, for papers.")] = False,
) -> None:
    """Print what each component or setting of an ablation study does to both rates, as a Markdown table."""
    from analysis import load_run  # noqa: PLC0415

    run = load_run(run_folder)
    if run.effects.empty:
        advice = "`leave_one_out`, `ofat`, `pairs` and a grid hold effects; a search by results and a comparison do not"
        raise UserError(Problem(str(run_folder), "holds no two configurations that differ in one thing", advice=advice))
    if as_csv:
        print(run.effects.to_csv(index=False), end="")
    else:
        print(run.effects_latex if as_latex else run.effects_markdown, end="")
