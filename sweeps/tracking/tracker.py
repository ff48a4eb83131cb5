"""What a sweep tells MLflow: which parts of its run folder have changed. A thread looks at them and sends the rest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sweeps.tracking.config import TrackingSettings, sqlite_path
from sweeps.tracking.contents import LIVE_SECONDS, STUDY, RunContents
from sweeps.tracking.delivery import Left, Sender, Sink, prepare_environment
from sweeps.tracking.faults import BrokenDatabaseError, TrackingFault, fault_of
from sweeps.tracking.ledger import Ledger, Source
from ubt.common.secrets import without_credentials
from ubt.trials.record import TrialRecord

_RUNNING_SECONDS = 2.0
"""How old MLflow's picture of a trial that runs may be: of one that is shorter it gets the end alone."""


class Tracker:
    """Copies a run folder to MLflow. Never raises and never waits for MLflow, except in `close` and `catch_up`.

    While a sweep runs it is told what changes; `catch_up` sends what an earlier one left (`ubt track RUN`).
    """

    def __init__(self, settings: TrackingSettings, run_folder: Path) -> None:
        """Prepare; nothing is sent yet. The folder's study is written down by then."""
        self._settings, self._run_folder = settings, run_folder.absolute()
        self._contents = RunContents(self._run_folder, settings.model_limit_mb * 1_000_000)
        self._ledger = Ledger(self._run_folder)
        self._sender: Sender | None = None
        if settings.enabled:
            # Not in the thread: Ray Tune may import MLflow before there is news.
            prepare_environment(sqlite_path(settings.address(self._run_folder)) is not None)
            self._sender = Sender(self._contents, self._ledger, self._connect, self.uri)
        self._told, self._database = False, 0

    @property
    def uri(self) -> str:
        """Return the address to show, without user and password."""
        return without_credentials(self._settings.address(self._run_folder))

    def started(self) -> None:
        """Tell that the study began, or goes on after an interruption.

        It is sent with the first trial's news: MLflow's import would take a core from workers that are starting.
        """
        if self._sender is not None:
            self._ledger.note_status("RUNNING")
            self._ledger.note_source(Source.of_this_process())

    def updated(self, record: TrialRecord) -> None:
        """Tell that a trial's record was written."""
        if record.state.ended:
            self._contents.at_work.discard(record.trial)
        else:
            self._contents.at_work.add(record.trial)
        self._look_at([record.trial], 0.0 if record.state.ended else _RUNNING_SECONDS)
        if record.state.ended:
            self._look_at([STUDY], LIVE_SECONDS)

    def answered(self, record: TrialRecord) -> None:
        """Nothing: the record was there before."""

    def finished(self, complete: bool) -> None:
        """Tell that the sweep ended and its report is written, and if all trials have run."""
        cut_off = sorted(self._contents.at_work)
        self._contents.at_work.clear()
        self._contents.status = "FINISHED" if complete else "KILLED"
        if self._sender is not None:
            self._ledger.note_status(self._contents.status)
        # What MLflow shows as running comes first: there may be little time.
        self._look_at([*cut_off, STUDY, *self._contents.subjects()])

    def close(self, timeout_seconds: float = 30.0) -> Left:
        """Send what can be sent within the time; return what is left for `ubt track`."""
        if self._sender is None or not self._told:
            return Left()
        if self._contents.status == "RUNNING":  # how it ended was not recorded
            self.finished(complete=False)
        return self._sender.close(timeout_seconds)

    def catch_up(self, show: Callable[[int, str], None], patience_seconds: float = 60.0, anew: bool = False) -> Left:
        """Send all that MLflow lacks, or `anew` everything, as long as there is progress; no sweep may be at work.

        Args:
            show: told each second how many of MLflow's runs are to be looked at, and what is in the way.
            patience_seconds: how long to wait for any progress.
            anew: do not trust what MLflow has confirmed before.
        """
        if self._sender is None:
            return Left()
        if anew:
            self._ledger.confirmed.clear()
        self._contents.status = self._ledger.status
        if self._contents.status not in ("FINISHED", "KILLED"):
            self._contents.status = self._contents.status_by_records
        self._sender.drain(patience_seconds, show)
        return self._sender.close(patience_seconds)

    def _look_at(self, subjects: list[str], wait_seconds: float = 0.0) -> None:
        self._told = True
        if self._sender is not None:
            self._sender.note(subjects, wait_seconds)
            self._sender.wake()

    def _connect(self, fault: TrackingFault | None) -> Sink:
        """Open a connection, in the sender's thread: MLflow takes two seconds to import."""
        try:
            uri = self._settings.address(self._run_folder)
            if database := sqlite_path(uri):
                from sweeps.tracking.database import made_ready  # noqa: PLC0415 — as below

                same = database.exists() and database.stat().st_ino == self._database
                made_ready(database, str(fault) if same and isinstance(fault, BrokenDatabaseError) else "")
                self._database = database.stat().st_ino
            from sweeps.tracking.mlflow_sink import MlflowSink  # noqa: PLC0415 — the sweep must not wait for it

            artifacts = self._settings.artifact_address(self._run_folder)
            return MlflowSink(uri, self._settings.experiment, artifacts, self._ledger.identity)
        except Exception as error:
            raise fault_of(error, connecting=True) from error
