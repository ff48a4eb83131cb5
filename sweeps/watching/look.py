"""What a run is at, as its folder shows it at this moment: read again when a record has changed."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

from analysis.findings import Findings, find
from analysis.formatting import count
from analysis.records import PARTS, RunRecords, read_run
from sweeps.planning.costs import sizes_in
from sweeps.planning.plan import Forecast
from sweeps.planning.time_left import TimeLeft
from sweeps.planning.trials import TrialPlanner
from sweeps.run.places import sweep_at_work
from sweeps.run.progress import Tally, at
from sweeps.study.config import StudyConfig
from ubt.artifacts.remote_folder import at_hand
from ubt.artifacts.store import default_store
from ubt.common.errors import UserError
from ubt.common.paths import RECORDS_FOLDER, STUDY_FILE
from ubt.config import read_json
from ubt.trials.migration import migrated_study
from ubt.trials.record import State, TrialRecord


@dataclass(frozen=True)
class Running:
    """A trial that runs: what it is at, where, and for how long."""

    trial: str
    at: str
    node: str
    seconds: float


@dataclass(frozen=True)
class Look:
    """What a run is at."""

    version: int
    """Another one whenever a trial has ended or begun: so long the report is the same."""
    name: str
    states: dict[State, int]
    total: int | None
    """None if neither the study nor its plan can be read here."""
    line: str
    running: tuple[Running, ...]
    """Where no sweep is at work: those that were cut off."""
    failures: tuple[tuple[str, str], ...]
    """The last trials that failed, each with the first line of its reason."""
    per_hour: float | None
    """Trials that ended, of the last hour in which any did."""
    computed_seconds: float
    saved_seconds: float
    seconds_left: float | None
    at_work: bool
    """Whether a sweep works in the folder."""
    findings: Findings | None = field(repr=False, default=None)
    """None before the first record."""

    @property
    def ended(self) -> int:
        """Return how many trials have ended."""
        return sum(number for state, number in self.states.items() if state.ended)

    @property
    def counted(self) -> str:
        """Say how many trials have ended, of how many."""
        return f"{self.ended:,} of {self.total:,} trials" if self.total else count(self.ended, "trial")

    @property
    def work(self) -> str:
        """Say whether the run is swept at the moment, and by how many workers; if not, what is left of it."""
        if self.at_work:
            return f"{count(len(self.running), 'trial')} running"
        if self.running:
            return f"not being swept; {count(len(self.running), 'trial')} cut off"
        return "complete" if self.total and self.ended >= self.total else "not being swept"


class Watched:
    """A run that is looked at again and again."""

    def __init__(self, place: str, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._place = place
        self._clock = clock
        with at_hand(place, PARTS) as folder:
            self._tally = _tally(folder)
        self._noted: dict[str, TrialRecord] = {}
        self._seen: tuple[tuple[str, int], ...] = ()
        self._look: Look | None = None
        self._version = 0

    def look(self) -> Look:
        """Return what the run is at now; of one behind an address, as its mirror has it.

        Raises:
            UserError: if it is no run, or a record cannot be read.
        """
        at_work = sweep_at_work(self._place) is not None
        with at_hand(self._place, PARTS) as folder:
            seen = _files(folder)
            if self._look and seen == self._seen and self._look.at_work == at_work:
                self._look = replace(self._look, running=self._running())
                return self._look
            self._seen = seen
            run = _records_of(folder)
        records = run.records if run else ()
        if any(record.state is not _state_of(self._noted.get(record.trial)) for record in records):
            self._version += 1
        for record in records:
            if self._noted.get(record.trial) != record:
                self._tally.note(record)
                self._noted[record.trial] = record
        self._look = self._looked(run, records, at_work)
        return self._look

    def _running(self) -> tuple[Running, ...]:
        now = self._clock()
        found = sorted(self._noted.values(), key=lambda record: record.number)
        return tuple(_running(record, now) for record in found if record.state is State.RUNNING)

    def _looked(self, run: RunRecords | None, records: tuple[TrialRecord, ...], at_work: bool) -> Look:
        failed = [record for record in records if record.state is State.FAILED]
        stages = [stage for record in records for stage in record.stages]
        return Look(
            version=self._version,
            name=run.name if run else self._place,
            states={state: self._tally.count(state) for state in State},
            total=self._tally.total or (run.planned.trials if run and run.planned else None),
            line=self._tally.line(),
            running=self._running(),
            failures=tuple((record.trial, record.reason.partition("\n")[0]) for record in failed[-5:]),
            per_hour=_per_hour(records),
            computed_seconds=sum(stage.spent_seconds for stage in stages),
            saved_seconds=sum(stage.saved_seconds for stage in stages),
            seconds_left=self._tally.seconds_left if at_work else None,
            at_work=at_work,
            findings=find(run) if run else None,
        )


def _files(folder: Path) -> tuple[tuple[str, int], ...]:
    return tuple(sorted((path.name, path.stat().st_mtime_ns) for path in folder.glob(f"{RECORDS_FOLDER}/*.json")))


def _records_of(folder: Path) -> RunRecords | None:
    """Return the run; None before its first record is there."""
    try:
        return read_run(folder)
    except UserError:
        if any((folder / RECORDS_FOLDER).glob("*.json")) or not (folder / STUDY_FILE).is_file():
            raise
        return None


def _tally(folder: Path) -> Tally:
    """Return what counts the trials; without the time left where the study, or its data, cannot be read here."""
    try:
        study = StudyConfig.model_validate(migrated_study(read_json(folder / STUDY_FILE)))
    except (ValueError, UserError):
        return Tally(0, 1.0)
    left = None
    with suppress(UserError, OSError, ValueError, KeyError):
        store = study.store or default_store()
        forecast = Forecast.of(study, cache(sizes_in(store)))
        left = TimeLeft(forecast, TrialPlanner(study, store), len(study.seeds), _workers(folder))
    return Tally(study.trials, study.ca_floor, rule=study.rule, time_left=left, every_epoch=study.every_epoch)


def _workers(folder: Path) -> int:
    """Return for how many workers the run was planned."""
    with suppress(OSError, ValueError):
        return int(json.loads((folder / "plan.json").read_bytes()).get("workers") or 1)
    return 1


def _state_of(record: TrialRecord | None) -> State | None:
    return record.state if record else None


def _running(record: TrialRecord, now: datetime) -> Running:
    doing = f"waits: {record.reason}" if record.waits_for else at(record)
    attempt = record.attempts[-1] if record.attempts else None
    began = _time(attempt.started_at if attempt else record.started_at)
    return Running(
        record.trial, doing, attempt.node if attempt else "", (now - began).total_seconds() if began else 0.0
    )


def _per_hour(records: tuple[TrialRecord, ...]) -> float | None:
    """Return how many trials ended in the hour before the last one did, or since the first began."""
    began = [time for record in records if (time := _time(record.started_at))]
    ends = [
        time + timedelta(seconds=record.seconds)
        for record in records
        if record.state.ended and (time := _time(record.started_at))
    ]
    if not ends:
        return None
    last = max(ends)
    since = max(min(began), last - timedelta(hours=1))
    hours = (last - since).total_seconds() / 3600
    return sum(end > since for end in ends) / hours if hours > 0 else None


def _time(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
