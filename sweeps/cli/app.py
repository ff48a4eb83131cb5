"""The `ubt` command. Each command imports what it needs when it runs, so that `ubt --help` answers at once."""

from __future__ import annotations

import errno
import gc
import json
import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

from sweeps.cli.clean import clean
from sweeps.cli.detached import launch, logs, status, stop
from sweeps.cli.ends import command_end
from sweeps.cli.mistakes import mistakes_text
from sweeps.cli.options import (
    DEFAULT_STORE,
    HereOption,
    JsonOption,
    NameOption,
    OutOption,
    RunArgument,
    SetOption,
    StudyArgument,
)
from sweeps.cli.runs.compare import compare
from sweeps.cli.runs.optuna import optuna
from sweeps.cli.runs.replay import replay
from sweeps.cli.runs.table import effects, table
from sweeps.cli.runs.watch import watch
from sweeps.cli.store import store_app
from sweeps.cli.sweep import SweepCommand, sweep
from sweeps.cli.tracking import track, ui
from ubt.common.errors import Problem, UserError
from ubt.common.exits import Exit
from ubt.common.model_choice import Format, Which
from ubt.common.secrets import without_credentials

app = typer.Typer(
    name="ubt",
    help="Sweeps of UBT, a token-level defense that removes backdoors from CLIP models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


app.add_typer(store_app, name="store")
app.command()(clean)
app.command()(ui)
for command in (launch, status, logs, stop):
    app.command()(command)
app.command()(track)
app.command()(compare)
app.command()(replay)
app.command()(table)
app.command()(effects)
app.command()(watch)
app.command()(optuna)
app.command(cls=SweepCommand)(sweep)


@app.command()
def run(
    study: StudyArgument,
    assignments: SetOption = None,
    name: NameOption = None,
    out: OutOption = "runs",
    as_json: JsonOption = False,
) -> None:
    """Run a study's base configuration once, in this process, without Ray: to look at one pipeline."""
    from sweeps.cli.output import record_text, show_stage  # noqa: PLC0415
    from sweeps.run.launch import run_once  # noqa: PLC0415
    from sweeps.study.loading import load_study  # noqa: PLC0415
    from ubt.trials.record import State  # noqa: PLC0415

    record = run_once(load_study(study, assignments or (), name), out, show_stage)
    print(record.model_dump_json() if as_json else record_text(record))
    raise typer.Exit(Exit.DONE if record.state is State.DONE else Exit.SOME_FAILED)


@app.command()
def poison(
    study: StudyArgument,
    out: Annotated[Path, HereOption("A new or empty folder.")],
    complete: Annotated[
        bool,
        typer.Option("--complete", help="With labelled images, clean pairs and a `study.yaml`: all a study needs."),
    ] = False,
    assignments: SetOption = None,
) -> None:
    """Write the poisoned training pairs of a study's base configuration as PNG and CSV files, for other tools."""
    from sweeps.cli.poison import write_poisoned  # noqa: PLC0415
    from sweeps.study.loading import load_study  # noqa: PLC0415

    print(write_poisoned(load_study(study, assignments or ()), out, complete))


@app.command()
def plan(
    study: StudyArgument,
    assignments: SetOption = None,
    name: NameOption = None,
    workers: Annotated[int, typer.Option(min=1, help="Workers that the wall time is worked out for.")] = 2,
    graph: Annotated[Path | None, typer.Option(help="Also draw the stages as an SVG file.")] = None,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="First measure, by a few batches, how fast the study's models are.")
    ] = False,
    address: Annotated[
        str, typer.Option(help="Where to measure: `local`, `inline`, or a cluster's, as that of `ubt sweep`.")
    ] = "local",
    pairs: Annotated[
        int | None, typer.Option(min=2, metavar="N", help="Plan for so many training pairs, for data that is not here.")
    ] = None,
    images: Annotated[
        int, typer.Option(min=2, metavar="N", help="With --pairs: labelled images, of both splits together.")
    ] = 50_000,
    price: Annotated[
        float | None, typer.Option("--price-per-gpu-hour", min=0, help="Of one GPU, in the currency that you pay in.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say what a sweep would run, what that costs, and how much the store has of it.

    Needs neither Ray nor torch, but for --calibrate.
    """
    gc.disable()  # a plan of 10,000 trials makes millions of objects, none of them rubbish: a quarter of its time
    from sweeps.cli.plan import plan_text  # noqa: PLC0415
    from sweeps.planning.costs import assumed  # noqa: PLC0415
    from sweeps.planning.plan import plan_study  # noqa: PLC0415
    from sweeps.scheduling.warm_start import warm_start, warm_start_text  # noqa: PLC0415
    from sweeps.study.loading import load_study  # noqa: PLC0415

    if address != "local" and not calibrate:
        raise UserError(Problem("--address", "says where to measure: nothing is measured without --calibrate", address))
    config = load_study(study, assignments or (), name)
    if calibrate:
        from sweeps.run.calibrate import calibrate_study  # noqa: PLC0415

        for measured in calibrate_study(config, address):
            print(f"measured: {measured}", file=sys.stderr)
    planned = plan_study(config, workers, assumed(pairs, images) if pairs else None, price)
    if earlier := warm_start(config):
        planned = planned.model_copy(update={"notes": (*planned.notes, warm_start_text(earlier))})
    print(planned.model_dump_json() if as_json else plan_text(planned))
    if graph:
        from sweeps.cli.plan import draw_graph  # noqa: PLC0415
        from sweeps.planning.layout import planned_pipelines  # noqa: PLC0415
        from sweeps.planning.plan import stored_keys  # noqa: PLC0415
        from ubt.common.atomic_files import write_asked  # noqa: PLC0415

        pipelines, _ = planned_pipelines(config)
        write_asked(graph, draw_graph(pipelines, stored_keys(planned.store)), "--graph")


@app.command()
def report(run_folder: RunArgument) -> None:
    """Write a run's report anew from its records."""
    from analysis import write_report  # noqa: PLC0415
    from ubt.artifacts.remote_folder import is_address, shown  # noqa: PLC0415

    print(write_report(run_folder).page)
    if is_address(run_folder):
        print(f"{shown(run_folder)}/report/index.html")


@app.command()
def figures(
    run_folder: RunArgument,
    out: Annotated[Path | None, HereOption("Folder of the figures; RUN/figures by default.")] = None,
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


@app.command()
def export(
    run_folder: RunArgument,
    out: Annotated[Path, HereOption("A file that ends with .safetensors or .pt, or a new folder.")],
    trial: Annotated[
        str | None, typer.Argument(help="A trial's name, or TRIAL@EPOCH; the chosen one's by default.")
    ] = None,
    which: Annotated[Which, typer.Option(help="The defended model, or those that it was made from.")] = Which.DEFENDED,
    format: Annotated[
        Format | None, typer.Option(help="What to write; the ending of --out says it, but for the folder of open-clip.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what an earlier export wrote.")] = False,
    recompute: Annotated[
        bool, typer.Option("--recompute", help="Compute the model again if the store does not have it.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Write a run's cleaned model as a file or folder that open_clip loads, with what is known of it beside it."""
    from sweeps.cli.output import export_text, show_stage  # noqa: PLC0415
    from sweeps.run.export import export as export_model  # noqa: PLC0415

    note = export_model(
        run_folder, out, trial, which=which, format=format, force=force, recompute=recompute, show=show_stage
    )
    print(note.model_dump_json() if as_json else export_text(note, out))


@app.command()
def schema() -> None:
    """Print the JSON schema of a study file, for editors."""
    from sweeps.study.loading import study_schema  # noqa: PLC0415

    print(json.dumps(study_schema(), indent=1))


@app.command()
def doctor(
    store: Annotated[str | None, typer.Option(help=f"Store to try; {DEFAULT_STORE} by default.")] = None,
    address: Annotated[
        str, typer.Option(help="`local`, or a cluster whose nodes are asked: `auto`, HOST:PORT or ray://HOST:PORT.")
    ] = "local",
    study: Annotated[
        str | None, typer.Option(help="A study whose data, plug-ins and files every node must have; with --address.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check versions, devices, Ray or a cluster's nodes, MLflow and the store."""
    from dataclasses import asdict  # noqa: PLC0415

    from sweeps.cli.doctor import diagnose  # noqa: PLC0415
    from sweeps.study.loading import load_study  # noqa: PLC0415

    findings = diagnose(store, address, load_study(study) if study else None)
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings]))
    for finding in () if as_json else findings:
        print(f"{'ok ' if finding.well else 'BAD'} {finding.subject:<12} {finding.text}")
    raise typer.Exit(Exit.DONE if all(finding.well for finding in findings) else Exit.SOME_FAILED)


class ShownLine(logging.Formatter):
    """Lines of the log, and tracebacks in it, without the passwords in addresses."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        return without_credentials(super().format(record))


def main() -> None:
    """Run the command line; mistakes in what was given are printed once, without a traceback."""
    logging.basicConfig(level=logging.WARNING)
    for handler in logging.getLogger().handlers:
        handler.setFormatter(ShownLine("%(levelname)s %(name)s: %(message)s"))
    logging.getLogger().addFilter(lambda record: "No pretrained weights" not in record.getMessage())
    with command_end():
        try:
            app()
        except UserError as error:
            print(mistakes_text(error), file=sys.stderr)
            sys.exit(Exit.MISTAKE)
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            too_long = UserError(Problem("a path", "no file or folder can have so long a name", error.filename))
            print(mistakes_text(too_long), file=sys.stderr)
            sys.exit(Exit.MISTAKE)
