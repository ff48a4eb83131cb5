"""`ubt ui` and `ubt track`: a run in MLflow, to look at and to send again."""

from __future__ import annotations

from typing import Annotated

import typer

from sweeps.cli.options import RunArgument
from ubt.common.exits import Exit


def ui(
    run_folder: RunArgument,
    host: Annotated[str, typer.Option(help="Address to listen on; this machine only by default.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; the next free one if it is taken.")] = 5000,
    uri: Annotated[
        str | None, typer.Option(help="MLflow's address, with its password; the one of the study by default.")
    ] = None,
    open_page: Annotated[
        bool, typer.Option("--open/--no-open", help="Open the run's page in a browser, where there is a desktop.")
    ] = True,
) -> None:
    """Open MLflow on a run, until Ctrl-C: a page that shows its trials by ASR and CA, ready to be looked at."""
    from sweeps.cli.ui import open_in_browser, serve  # noqa: PLC0415
    from sweeps.run.folder import tracking_of  # noqa: PLC0415
    from sweeps.run.places import run_at  # noqa: PLC0415
    from sweeps.run.track import ready_to_show, settings_for  # noqa: PLC0415
    from sweeps.tracking.faults import TrackingFault  # noqa: PLC0415
    from sweeps.tracking.pages import pages_of  # noqa: PLC0415
    from ubt.artifacts.remote_folder import shown  # noqa: PLC0415

    settings = settings_for(run_folder, uri)[0] if uri else tracking_of(run_folder)
    folder = run_at(run_folder).path
    address = settings.address(folder)
    ready_to_show(address, print)

    def show_pages(server: str, version: str) -> None:
        try:
            pages = pages_of(settings, folder, version)
        except TrackingFault as fault:
            print(f"Where the run is in it cannot be asked: {fault}" + (f" ({fault.advice})" if fault.advice else ""))
            return
        if pages is None:
            print(f"MLflow does not have this run; `ubt track {shown(run_folder)}` sends it.")
            return
        addresses = pages.addresses(server)
        for what, page in addresses.items():
            print(f"  {what + ':':<20} {page}")
        if open_page:
            open_in_browser(next(iter(addresses.values())))

    serve(address, host, port, answers=show_pages)


def track(
    run_folders: Annotated[
        list[str], typer.Argument(metavar="RUN...", help="Run folders, e.g. runs/demo, or their addresses.")
    ],
    everything: Annotated[
        bool, typer.Option("--all", help="Send everything anew, also what MLflow has confirmed.")
    ] = False,
    uri: Annotated[
        str | None,
        typer.Option(help="MLflow's address, with its password; $MLFLOW_TRACKING_URI or else the study's by default."),
    ] = None,
) -> None:
    """Send what MLflow lacks of runs: after it was down, or into another one."""
    from sweeps.cli.output import seldom, untracked_lines  # noqa: PLC0415
    from sweeps.run.track import track as send  # noqa: PLC0415
    from ubt.artifacts.remote_folder import shown  # noqa: PLC0415

    left = 0
    for run in run_folders:
        outcome = send(run, seldom(), uri, everything)
        print("\n".join(untracked_lines(outcome, shown(run)) or [f"{shown(run)}: MLflow has everything"]))
        left += outcome.runs + outcome.refused
    raise typer.Exit(Exit.SOME_FAILED if left else Exit.DONE)
