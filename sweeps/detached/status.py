"""How a run is, read from its folder or address alone: neither the cluster nor the driver's machine is asked."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from pydantic import Field

from sweeps.run.job import JOB_FILE, Job
from sweeps.run.places import AtWork, run_at, sweep_at_work
from sweeps.run.progress import Tally, at
from sweeps.study.config import StudyConfig
from ubt.artifacts.remote_folder import at_hand
from ubt.common.errors import Problem, UserError
from ubt.common.exits import Exit
from ubt.common.formatting import duration
from ubt.common.paths import RECORDS_FOLDER, STUDY_FILE, is_file
from ubt.config import Config, read_json
from ubt.config.dotted_paths import JsonObject
from ubt.trials.migration import migrated_study
from ubt.trials.record import State, TrialRecord, read_record

SILENT_SECONDS = 60.0
"""A sweep writes a sign of life every ten seconds; after so long without one it is said to be silent."""
_MOST_RUNNING = 8


class RunStatus(Config):
    """How a run is."""

    run: str
    """Its folder or address."""
    study: str
    total: int | None
    """How many trials the study has; null if this version cannot tell."""
    states: dict[State, int]
    progress: str
    """In one line."""
    running: tuple[str, ...] = ()
    """What is being computed, a line a trial; of a sweep that is not at work, what it was cut off in."""
    at_work: bool
    """A sweep works in it."""
    sweep: str = ""
    """Which one, if that is known."""
    silent_seconds: float | None = None
    """Since its last sign of life, by the clocks of this machine and of the address; null for a folder of a machine."""
    job: str = ""
    """The Ray job that worked in it last; empty if none did."""
    job_status: str = ""
    """Ray's word for it, if its server was asked."""
    complete: bool = Field(default=False)
    """Every trial has ended, and no sweep is at work."""

    @property
    def status(self) -> int:
        """Return the exit status of who waits for its end."""
        if not self.complete:
            return Exit.FAULT
        failed = self.states.get(State.FAILED, 0)
        return Exit.SOME_FAILED if failed else Exit.DONE


def read_status(place: str) -> RunStatus:
    """Return how the run in a folder or at an address is.

    Raises:
        UserError: if there is no run, or the address cannot be read.
    """
    working = sweep_at_work(place)  # first: what it wrote until it ended is read after that
    run = run_at(place)
    with at_hand(place, (STUDY_FILE, RECORDS_FOLDER, JOB_FILE)) as folder:
        if not is_file(folder / STUDY_FILE):
            advice = "a sweep writes it when its workers have started; `ubt logs` shows what it is at before that"
            raise UserError(Problem(run.shown, f"is no run folder: it has no {STUDY_FILE}", advice=advice))
        study, records, job = read_json(folder / STUDY_FILE), _records(folder), Job.noted_in(folder)
    return _status(run.shown, study, records, working, job)


def _status(
    shown: str, tree: JsonObject, records: list[TrialRecord], working: AtWork | None, job: Job | None
) -> RunStatus:
    study = _study(tree)
    tally = Tally(0, 1.0)
    if study:
        tally = Tally(study.trials, study.ca_floor, rule=study.rule, every_epoch=study.every_epoch)
    for record in records:
        tally.note(record)
    total = tally.total if study else None  # with the earlier epochs that have become trials
    ended = tally.ended
    every = total is not None and ended >= total
    if study and study.race:  # how many there are is known when none runs and none is left
        every = ended >= study.least_trials and ended == len(records)
    return RunStatus(
        run=shown,
        study=str(tree.get("name", "")),
        total=total,
        states={state: tally.count(state) for state in State},
        progress=f"{ended} of {'?' if total is None else total} trials have ended: {tally.line()}",
        running=tuple(_at(record) for record in records if not record.state.ended),
        at_work=working is not None,
        sweep=working.who if working else "",
        silent_seconds=working.silent_seconds if working else None,
        job=job.id if job else "",
        complete=working is None and every,
    )


def _at(record: TrialRecord) -> str:
    """Return what a trial is at, in a few words."""
    said = record.reason if record.waits_for or not record.stages else ""
    return f"{record.trial} {said or at(record)}"


def _study(tree: JsonObject) -> StudyConfig | None:
    """Return the study, if this version and its plug-ins can read it."""
    with suppress(ValueError, UserError):
        return StudyConfig.model_validate(migrated_study(tree))
    return None


def _records(folder: Path) -> list[TrialRecord]:
    """Return the records by number; what is damaged is left out, as the sweep sets it aside."""
    found = []
    for path in (folder / RECORDS_FOLDER).glob("*.json"):
        with suppress(UserError):
            found.append(read_record(path))
    return sorted(found, key=lambda record: record.number)


def status_text(status: RunStatus) -> str:
    """Return how a run is in words."""
    lines = [f"{status.study}: {status.progress}", f"  run      {status.run}", f"  sweep    {_sweep_text(status)}"]
    if status.job:
        lines.append(f"  job      {status.job}" + (f": {status.job_status}" if status.job_status else ""))
    shown, more = status.running[:_MOST_RUNNING], len(status.running) - _MOST_RUNNING
    lines += [f"  {'running' if status.at_work else 'cut off':<8} {line}" for line in shown]
    lines += [f"  and {more} more"] if more > 0 else []
    return "\n".join(lines)


def _sweep_text(status: RunStatus) -> str:
    if not status.at_work:
        how = "every trial has ended" if status.complete else "`ubt sweep` or `ubt launch` with --resume goes on"
        return f"none is at work; {how}"
    who = f"at work: {status.sweep}" if status.sweep else "at work"
    if status.silent_seconds is None:
        return who
    if status.silent_seconds > SILENT_SECONDS:
        return f"{who}, but without a sign of life for {duration(status.silent_seconds)}: it may be dead, or cut off"
    return f"{who}, last sign of life {duration(max(0.0, status.silent_seconds))} ago"
