"""`ubt watch`: a run while it is swept, in the terminal and as a page."""

from __future__ import annotations

from typing import Annotated

import typer

from sweeps.cli.options import RunArgument

LOOK_SECONDS = 2.0


def watch(
    run_folder: RunArgument,
    port: Annotated[int, typer.Option(help="Port of the page on 127.0.0.1; the next free one if it is taken.")] = 8420,
    page: Annotated[bool, typer.Option("--page/--no-page", help="Serve the report, and update it.")] = True,
    once: Annotated[bool, typer.Option("--once", help="Show what the run is at now, and end.")] = False,
) -> None:
    """Follow a sweep: front so far, running trials, workers, failures, time left; the report, kept up to date."""
    import time  # noqa: PLC0415
    from contextlib import suppress  # noqa: PLC0415

    from sweeps.watching.look import Watched  # noqa: PLC0415
    from sweeps.watching.server import HOST, Pages, serve  # noqa: PLC0415
    from sweeps.watching.terminal import display  # noqa: PLC0415

    watched, pages = Watched(run_folder), Pages()
    pages.take(look := watched.look())
    server = serve(pages, port) if page and not once else None
    address = f"http://{HOST}:{server.server_address[1]}/" if server else ""
    if address:
        print(address, flush=True)
    with suppress(KeyboardInterrupt), display(address) as shown:  # Ctrl-C is the way in which it ends
        shown.show(look)
        while not once and (look.at_work or server or pages.waits):
            time.sleep(LOOK_SECONDS)
            look = watched.look()
            pages.take(look)
            shown.show(look)
    if server:
        server.shutdown()
