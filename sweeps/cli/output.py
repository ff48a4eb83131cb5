"""What the commands print when they are done."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from analysis import Summary
from analysis.planned import planned_text
from analysis.summary import Point, earlier_text, failures_text, stopped_text
from sweeps.run.finish import SweepEnd
from sweeps.run.folder import RunFolder
from sweeps.run.memory import gpu_advice
from sweeps.study.config import Resources
from sweeps.tracking import Left
from ubt.artifacts.exporting.model_note import ModelNote
from ubt.common.errors import UserError
from ubt.common.formatting import describe, duration
from ubt.trials.rates import Rates
from ubt.trials.record import StageRecord, State, TrialRecord, read_records

_QUIET_SECONDS = 10.0


def outcome_text(outcome: SweepEnd, resume_command: str) -> str:
    """Return the end of a sweep in words: what was chosen, where the report is, how to look at it in MLflow."""
    lines = ["No trial has run.", ""]
    if outcome.summary:
        lines = [*_summary_lines(outcome.summary), ""]
        if not outcome.report_fault:
            lines.append(f"Report:  {outcome.run.shown}/report/index.html")
    if outcome.report_fault:
        again = f"`ubt report {shlex.quote(outcome.run.shown)}` writes it again"
        lines.append(f"Report:  could not be written ({outcome.report_fault}); {again}")
    lines.append(f"MLflow:  {outcome.mlflow_command}")
    lines += [f"         {line}" for line in untracked_lines(outcome.untracked, outcome.run.shown)]
    lines += [f"Budget:  {outcome.budget}"] if outcome.budget else []
    if outcome.over_budget:
        lines.append(f"Trials are left; with more in search.budget they are run by\n  {resume_command}")
    if outcome.interrupted or not outcome.complete:
        why = f"Stopped: {outcome.stopped}" if outcome.stopped else "Not all trials have run"
        why = "Interrupted" if outcome.interrupted else why
        lines.append(f"{why}; what is done is kept. Go on with:\n  {resume_command}")
    return "\n".join(lines)


def print_gpu_advice(run: RunFolder, resources: Resources) -> None:
    """Print whether more trials, or fewer, should share a GPU, going by the memory they took."""
    with suppress(UserError):  # of a record that cannot be read; who reads them says so
        if advice := gpu_advice(read_records(run.records), resources.gpus_per_trial):
            print(advice)


def untracked_lines(left: Left, run: str) -> list[str]:
    """Return what MLflow lacks of a run, why, and what to do about it; no lines if it has all."""
    lines = []
    if left.runs:
        why = f": {left.reason}" if left.reason else " yet: there was too little time"
        lines.append(f"{left.runs} of MLflow's runs are not complete{why}")
        lines += [f"what to do: {left.advice}"] if left.advice else []
        lines.append(f"`ubt track {shlex.quote(run)}` sends the rest; the run folder has everything")
    if left.refused:
        lines.append(
            f"{left.refused} of MLflow's runs cannot be brought up to date: MLflow refuses what they would show"
        )
    return lines


def seldom() -> Callable[[str], None]:
    """Return what prints progress where it does not mix with the result: what is new, and at most every ten seconds."""
    last = 0.0

    def show(text: str) -> None:
        nonlocal last
        if not last or time.monotonic() - last >= _QUIET_SECONDS:
            print(text, file=sys.stderr, flush=True)
            last = time.monotonic()

    return show


def _summary_lines(summary: Summary) -> list[str]:
    more = {State.FAILED: failures_text(summary.failures), State.PRUNED: stopped_text(summary.stopped)}
    counted = summary.states.items()
    states = ", ".join(f"{count} {state}{more.get(state, '')}" for state, count in counted if count)
    seconds, stages = summary.seconds, summary.stages
    lines = [
        "",
        f"{summary.name}: {states}{earlier_text(summary.earlier_epochs)} in {duration(seconds.wall)}; "
        f"stages: {stages.computed} computed, {stages.reused} reused ({duration(seconds.saved)} saved)",
    ]
    lines += [f"  {planned_text(summary.planned, seconds.wall)}"] if summary.planned else []
    for gate, outcomes in summary.gates.items():
        missed = [f"{outcome} in {counted}" for outcome, counted in outcomes.items() if outcome != "passed"]
        lines += [f"  gate {gate}: {', '.join(missed)} of {sum(outcomes.values())} trials"] if missed else []
    if summary.compared:
        return [*lines, f"  {summary.compared}: the table is in the report."]
    lines.append(f"  {'poisoned model':<22}{_point_text(summary.poisoned.test if summary.poisoned else None)}")
    measured = summary.poisoned.test or summary.poisoned.val
    if measured and measured.asr is None and summary.rule == "lowest_asr":
        return [*lines, "  No attack is known, so there is no ASR to choose by: none is chosen."]
    if summary.chosen is None:
        alike = " and saw selected pairs no longer alike" if summary.rule == "trigger_free" else ""
        return [*lines, f"  No trial kept the clean accuracy within objectives.ca_floor{alike}: none is chosen."]
    chosen = summary.chosen
    lines.append(f"  {'chosen: ' + (chosen.name or chosen.trial):<22}{_point_text(chosen.test)}")
    lines.append(f"    {describe(chosen.config)}")
    if summary.rule == "trigger_free":
        lines.append(f"    chosen without the trigger: the rule knew {summary.knew}")
    return lines


def _point_text(point: Point | None) -> str:
    if point is None:
        return "not measured"
    return f"test ASR {'–' if point.asr is None else f'{point.asr:.3f}'}  CA {point.ca:.3f}"


def record_text(record: TrialRecord) -> str:
    """Return one trial's result in words."""
    lines = [f"{record.study} {record.trial}: {record.state} in {duration(record.seconds)}"]
    lines += [f"  {record.reason}"] if record.reason else []
    lines += [
        f"  gate {gate.gate}, {gate.outcome}: {gate.reason}" for gate in record.gates if gate.outcome == "reported"
    ]
    for title, rates in (
        ("poisoned, val", record.poisoned_val),
        ("poisoned, test", record.poisoned_test),
        ("defended, val", record.val),
        ("defended, test", record.test),
    ):
        lines += [f"  {title:<15} {_rates_text(rates)}"] if rates else []
    return "\n".join(lines)


def _rates_text(rates: Rates) -> str:
    attacked = "–" if rates.attacked is None else "{:.3f} [{:.3f}, {:.3f}]".format(*rates.attacked)
    return f"ASR {attacked}  CA {rates.ca:.3f} [{rates.ca_low:.3f}, {rates.ca_high:.3f}]"


def export_text(note: ModelNote, out: Path) -> str:
    """Return what was written of a model, and how to load it."""
    origin, activation = note.origin, {"gelu": "GELU", "quickgelu": "QuickGELU"}[note.activation]
    at = f"@{origin.epoch}" if origin.epoch else ""
    lines = [
        f"{out}  the {origin.which} model of {origin.trial}{at}: {note.name} with {activation}, "
        f"{note.parameters / 1e6:.1f} million parameters"
    ]
    for split, rates in (("val", origin.val), ("test", origin.test)):
        lines += [f"  {split:<5} {_rates_text(rates)}"] if rates else []
    if origin.computed_again:
        lines.append("  computed again: these rates are those of the first time, and on a GPU bits may differ")
    if note.load:
        return "\n".join([*lines, f"Load it:  {note.load}"])
    return "\n".join(
        [*lines, f"open_clip does not know `{note.name}` by its name: `--format open-clip` says what it is"]
    )


def show_stage(stage: StageRecord) -> None:
    """Print what a stage is at, where it does not mix with the result."""
    print(stage_text(stage), file=sys.stderr, flush=True)


def stage_text(stage: StageRecord) -> str:
    """Return what a stage is at, or came to, in one line."""
    words = [f"{stage.stage:<10}"]
    if stage.epochs and not stage.complete:
        epoch = stage.epochs[-1]
        words.append(f"epoch {epoch.epoch}")
        words += [f"loss {epoch.loss:.3f}"] if epoch.loss is not None else []
        words += [str(epoch.val)] if epoch.val else []
    elif stage.complete:
        words.append("reused" if stage.reused else "done")
        words += [f"{name} {value:.3g}" for name, value in stage.diagnostics.items()]
    return "  ".join([*words, f"{stage.spent_seconds:.1f} s"])
