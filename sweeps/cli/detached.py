"""`ubt launch`, `ubt status`, `ubt logs` and `ubt stop`: sweeps that run without the machine that started them."""

from __future__ import annotations

import json
import re
import sys
import time
from dataclasses import asdict
from typing import Annotated

import typer

from sweeps.cli.mistakes import mistakes_text
from sweeps.cli.options import JsonOption, NameOption, SetOption, StudyArgument
from sweeps.cli.sweep import resume_command
from ubt.common.errors import UserError
from ubt.common.exits import Exit
from ubt.common.secrets import without_credentials

ServerOption = Annotated[
    str | None,
    typer.Option("--address", help="The cluster's job server, http://HOST:8265; $RAY_API_SERVER_ADDRESS by default."),
]
TargetArgument = Annotated[
    str, typer.Argument(metavar="RUN|JOB", help="A run folder, the address of one, or a job's id (with --address).")
]
_STOP_SECONDS = 120.0
_AGES = re.compile(r", last sign of life [^,\n]* ago|\"silent_seconds\": [0-9.]+")
"""What changes from look to look while nothing happens."""


def launch(
    study: StudyArgument,
    address: ServerOption = None,
    out: Annotated[
        str, typer.Option(help="Folder of run folders on the cluster's head, or an address, e.g. s3://bucket/runs.")
    ] = "~/runs",
    assignments: SetOption = None,
    name: NameOption = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run of this study that was used last, if there is one.")
    ] = False,
    extend: Annotated[bool, typer.Option("--extend", help="Like --resume, though the search has changed.")] = False,
    add_trials: Annotated[
        int, typer.Option("--add-trials", min=0, metavar="N", help="Go on with N trials more than before.")
    ] = 0,
    grace: Annotated[
        float, typer.Option(min=1, metavar="SECONDS", help="From `ubt stop` to the end; see `ubt sweep`.")
    ] = 30.0,
    as_json: JsonOption = False,
) -> None:
    """Have a cluster run a study as a job, and return at once. Paths in the study are those of the cluster."""
    from sweeps.detached.jobs import server_address  # noqa: PLC0415
    from sweeps.detached.launch import launch as launch_sweep  # noqa: PLC0415
    from sweeps.detached.launch import launched_text  # noqa: PLC0415
    from sweeps.study.loading import load_study  # noqa: PLC0415

    options = (
        *(["--resume=auto"] if resume else []),
        *(["--extend"] if extend else []),
        *(["--add-trials", str(add_trials)] if add_trials else []),
    )
    found = launch_sweep(
        load_study(study, assignments or (), name),
        server_address(address),
        out,
        options=options,
        grace_seconds=grace,
        command=resume_command(sys.argv),
    )
    print(json.dumps(asdict(found)) if as_json else launched_text(found))


def status(
    run: TargetArgument,
    address: ServerOption = None,
    watch: Annotated[bool, typer.Option("--watch", help="Print what changes until the sweep has ended.")] = False,
    every: Annotated[float, typer.Option(min=0.5, metavar="SECONDS", help="How often to look, with --watch.")] = 5.0,
    as_json: JsonOption = False,
) -> None:
    """Say how a run is, from its folder or address alone; of a job, ask its cluster first where that run is."""
    from sweeps.detached.look import Looker  # noqa: PLC0415

    looker, printed = Looker(run, address), ""
    while True:
        try:
            found = looker.look()
        except UserError as error:
            if not printed:
                raise
            print(mistakes_text(error), file=sys.stderr, flush=True)  # an address that stumbles, say
        else:
            text = json.dumps(found.as_json) if as_json else found.text
            if _AGES.sub("", text) != printed:
                print(text, flush=True)
                printed = _AGES.sub("", text)
            if not watch or not found.goes_on:
                raise typer.Exit(found.status if watch else Exit.DONE)
        time.sleep(every)


def logs(
    run: TargetArgument,
    address: ServerOption = None,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until the job has ended.")] = False,
) -> None:
    """Print what a launched sweep prints, as its cluster has it."""
    from sweeps.detached.jobs import JobServer  # noqa: PLC0415
    from sweeps.detached.look import job_of  # noqa: PLC0415

    def show(text: str) -> None:
        print(without_credentials(text), end="", flush=True)

    job, at = job_of(run, address)
    server = JobServer(at)
    if follow:
        server.follow(job, show)
    else:
        show(server.log(job))


def stop(run: TargetArgument, address: ServerOption = None) -> None:
    """End a launched sweep in order: what is done is kept, its report is written, and --resume goes on with it."""
    from sweeps.detached.jobs import JobServer  # noqa: PLC0415
    from sweeps.detached.look import job_of  # noqa: PLC0415

    job, at = job_of(run, address)
    server = JobServer(at)
    state = server.stop(job, _STOP_SECONDS)
    print(f"{job}: {state.status}" + ("" if state.ended else "; it has not ended yet, `ubt status` says when it has"))
    raise typer.Exit(Exit.DONE if state.ended else Exit.FAULT)
