"""`ubt optuna`: a run's trials for optuna-dashboard."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

from sweeps.cli.options import HereOption, RunArgument


def optuna(
    run_folder: RunArgument,
    out: Annotated[
        Path | None, HereOption("File to write; by default NAME.optuna.journal here, which is replaced.")
    ] = None,
) -> None:
    """Write a run's trials as a journal that optuna-dashboard opens, of any design, finished or not."""
    from analysis.findings import find  # noqa: PLC0415
    from analysis.optuna_journal import as_journal  # noqa: PLC0415
    from analysis.records import read_run  # noqa: PLC0415
    from ubt.common.atomic_files import write_whole  # noqa: PLC0415

    run = read_run(run_folder)
    path = write_whole(out or Path(f"{run.name}.optuna.journal"), as_journal(find(run)))
    print(f"{len(run.records):,} trials written; optuna-dashboard {shlex.quote(str(path))} shows them")
