"""`ubt replay`: a trial computed again, and whether the same comes out."""

from __future__ import annotations

from typing import Annotated

import typer

from sweeps.cli.options import JsonOption, RunArgument
from ubt.common.exits import Exit


def replay(
    run_folder: RunArgument,
    trial: Annotated[str, typer.Argument(help="A trial's name, or TRIAL@EPOCH.")],
    store: Annotated[
        str | None, typer.Option(help="A new folder that keeps what is computed; a temporary one by default.")
    ] = None,
    tolerance: Annotated[
        float,
        typer.Option(
            min=0, metavar="POINTS", help="How far rates may be apart where the kind of device or torch is another."
        ),
    ] = 2.0,
    as_json: JsonOption = False,
) -> None:
    """Compute a trial again in a fresh store, without Ray, and compare it bit for bit with what the run has."""
    from sweeps.cli.output import show_stage  # noqa: PLC0415
    from sweeps.replaying.compute import replay as compute_again  # noqa: PLC0415
    from sweeps.replaying.text import replayed_text  # noqa: PLC0415

    found = compute_again(run_folder, trial, store=store, tolerance=tolerance / 100, show=show_stage)
    print(found.model_dump_json() if as_json else replayed_text(found))
    raise typer.Exit(Exit.DONE if found.as_expected else Exit.SOME_FAILED)
