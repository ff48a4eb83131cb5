"""`ubt sweep`: run a study, and say how it ended and how it goes on."""

from __future__ import annotations

import json
import platform
import shlex
import sys
from typing import TYPE_CHECKING, Annotated

import typer
from typer.core import TyperCommand

from sweeps.cli.mistakes import mistakes_text
from sweeps.cli.options import JsonOption, NameOption, OutOption, SetOption, StudyArgument
from ubt.common.ending import GRACE_SECONDS, current
from ubt.common.errors import UserError
from ubt.common.exits import Exit

if TYPE_CHECKING:
    from typer._click.core import Context

    from sweeps.run.folder import RunFolder

AUTO = "--resume-auto"


class SweepCommand(TyperCommand):
    """Takes `--resume=auto`, where `--resume` alone takes no value."""

    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:
        """Read the words of a command line."""
        return super().parse_args(ctx, [AUTO if word == "--resume=auto" else word for word in args])


def sweep(
    study: StudyArgument,
    assignments: SetOption = None,
    name: NameOption = None,
    out: OutOption = "runs",
    address: Annotated[
        str, typer.Option(help="`local`, `inline` (this process, no Ray), `auto`, or ray://HOST:PORT.")
    ] = "local",
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with the run of this study that was used last; --resume=auto begins if there is none.",
        ),
    ] = False,
    resume_auto: Annotated[bool, typer.Option(AUTO, hidden=True)] = False,
    extend: Annotated[
        bool, typer.Option("--extend", help="Like --resume, though the search has changed; what is known is not run.")
    ] = False,
    add_trials: Annotated[
        int, typer.Option("--add-trials", min=0, metavar="N", help="Like --resume, with N trials more than before.")
    ] = 0,
    grace: Annotated[
        float,
        typer.Option(
            min=1,
            metavar="SECONDS",
            help="From Ctrl-C, SIGTERM or SIGHUP to the end; with more than the default, running stages may end first.",
        ),
    ] = GRACE_SECONDS,
    as_json: JsonOption = False,
) -> None:
    """Run a study: every trial, sharing every stage, then the report."""
    ending, go_on = current(), resume_command(sys.argv)
    ending.last_words = f" before the first trial. Start again with:\n  {shlex.join(['ubt', *sys.argv[1:]])}"
    from sweeps.run.job import Job  # noqa: PLC0415 — `ubt --help` needs none of it

    if job := Job.of_this_process():
        go_on = job.command or go_on
        ending.last_words = f" before the first trial. Start again with:\n  {go_on}"
    from sweeps.cli.output import outcome_text, print_gpu_advice  # noqa: PLC0415
    from sweeps.run.launch import sweep as run_sweep  # noqa: PLC0415
    from sweeps.study.loading import load_study  # noqa: PLC0415

    config = load_study(study, assignments or (), name)

    runs: list[RunFolder] = []

    def begun(run: RunFolder) -> None:
        runs.append(run)
        if job:
            print(f"Run folder: {run.shown} (the sweep works on {platform.node()})", file=sys.stderr, flush=True)
        report = f"`ubt report {shlex.quote(run.shown)}` writes the report"
        ending.last_words = f"; what is done is kept, and {report}. Go on with:\n  {go_on}"

    try:
        outcome = run_sweep(
            config,
            out,
            address,
            resume="auto" if resume_auto else resume,
            extend=extend,
            add_trials=add_trials,
            grace_seconds=grace,
            begun=begun,
        )
    except UserError as error:
        if not runs:
            raise
        going_on = f"What is done is kept. When that is mended, go on with:\n  {go_on}"  # no node is left, say
        print(f"{mistakes_text(error)}\n{going_on}", file=sys.stderr)
        raise typer.Exit(Exit.MISTAKE) from error
    if as_json:
        print(json.dumps(outcome.summary.model_dump(mode="json") if outcome.summary else None))
    else:
        print(outcome_text(outcome, resume_command=go_on))
        print_gpu_advice(outcome.run, config.resources)
    ending.told = True
    raise typer.Exit(outcome.status)


def resume_command(words: list[str]) -> str:
    """Return the command that goes on. Added trials are part of the run by then, and must not be added again."""
    adding = {at + skip for at, word in enumerate(words) if word == "--add-trials" for skip in (0, 1)}
    kept = [word for at, word in enumerate(words) if at and at not in adding and not word.startswith("--add-trials=")]
    return shlex.join(["ubt", *(word for word in kept if word not in {"--resume", "--resume=auto"}), "--resume"])
