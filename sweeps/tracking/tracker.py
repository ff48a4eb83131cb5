"""What a sweep tells MLflow. Each call writes one small file and returns; a thread sends it."""

from __future__ import annotations

import logging
import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import cast

from pydantic import JsonValue

from sweeps.tracking.config import TrackingSettings, artifacts_folder, without_credentials
from sweeps.tracking.delivery import Outbox, Sender, Sink
from sweeps.tracking.events import Event, StudyFinished, StudyStarted, TrialUpdated, UnavailableError
from ubt.trials.record import TrialRecord

_log = logging.getLogger(__name__)


class Tracker:
    """Copies one study to MLflow while it runs. Never raises and never waits for MLflow, except in `close`.

    Constructing it after an interruption, then `close`, sends what was left (`ubt track RUN`).
    """

    def __init__(
        self,
        settings: TrackingSettings,
        run_folder: Path,
        study_name: str,
        study: Mapping[str, JsonValue],
        searched: Sequence[str] = (),
    ) -> None:
        """Prepare; nothing is sent yet. `searched` are the dotted paths of the search space."""
        self._settings, self._run_folder = settings, run_folder.absolute()
        self._study_name, self._study, self._searched = study_name, study, tuple(searched)
        self._outbox = Outbox(self._run_folder / "outbox") if settings.enabled else None
        self._sender: Sender | None = None
        if self._outbox is not None:
            connect = _connector(settings, self._run_folder, self._outbox)
            self._sender = Sender(self._outbox, connect, self.uri)
        self._warned = False

    @property
    def uri(self) -> str:
        """Return the address to show, without user and password."""
        return without_credentials(self._settings.address(self._run_folder))

    @property
    def command(self) -> str:
        """Return what a user types to look at the study in MLflow."""
        return f"ubt ui {shlex.quote(str(self._run_folder))}"

    def started(self) -> None:
        """Tell that the study began, or goes on after an interruption.

        It is sent with the first trial's news: MLflow's import would take a core from workers that are starting.
        """
        self._keep(StudyStarted(study=self._study_name, document=_presentable(self._study)))

    def updated(self, record: TrialRecord) -> None:
        """Tell how a trial stands."""
        self._tell(TrialUpdated(record=record, searched=self._searched))

    def answered(self, record: TrialRecord) -> None:
        """Nothing: the sweep that ran it has sent it to MLflow."""

    def finished(
        self,
        summary: Mapping[str, JsonValue],
        front_trials: Sequence[str],
        report_folder: Path,
        complete: bool = True,
    ) -> None:
        """Tell that the study ended: its numbers, the trials on the front, its report, and if all has run."""
        folder = report_folder.absolute()
        if folder.is_relative_to(self._run_folder):
            folder = folder.relative_to(self._run_folder)
        self._tell(
            StudyFinished(
                study=self._study_name,
                summary=_presentable(summary),
                front=tuple(front_trials),
                report_folder=str(folder),
                complete=complete,
            )
        )

    def close(self, timeout_seconds: float = 30.0) -> int:
        """Send what can be sent within the time; return how many events wait for a later run."""
        if self._outbox is None or self._sender is None:
            return 0
        if len(self._outbox):
            self._sender.wake()
        waiting = self._sender.close(timeout_seconds)
        if waiting:
            _log.warning("%d events for MLflow wait in %s; `ubt track` sends them.", waiting, self._outbox.folder)
        return waiting

    def _tell(self, event: Event) -> None:
        if self._keep(event) and self._sender is not None:
            self._sender.wake()

    def _keep(self, event: Event) -> bool:
        """Put an event where the sender finds it; False if there is no such place, or it cannot be written."""
        if self._outbox is None:
            return False
        try:
            self._outbox.add(event)
        except OSError as error:
            # The record is on disk, or the sweep has stopped for the same reason; the copy must not stop it.
            if not self._warned:
                _log.warning("cannot keep events for MLflow in %s: %s", self._outbox.folder, error)
            self._warned = True
            return False
        return True


def _connector(settings: TrackingSettings, run_folder: Path, outbox: Outbox) -> Callable[[], Sink]:
    """Return what opens a connection, in the sender's thread: MLflow takes two seconds to import."""

    def connect() -> Sink:
        try:
            from sweeps.tracking.mlflow_sink import MlflowSink  # noqa: PLC0415 — the sweep must not wait for it

            identity = outbox.identity
        except (ImportError, OSError) as error:
            raise UnavailableError(f"{type(error).__name__}: {error}") from error
        uri = settings.address(run_folder)
        return MlflowSink(uri, settings.experiment, artifacts_folder(uri, run_folder), run_folder, identity)

    return connect


def _presentable(document: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Return `document` without credentials and with null for numbers that JSON lacks."""
    return cast("dict[str, JsonValue]", _cleaned(dict(document)))


def _cleaned(value: JsonValue) -> JsonValue:
    if isinstance(value, str):
        return without_credentials(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {name: _cleaned(part) for name, part in value.items()}
    return [_cleaned(part) for part in value] if isinstance(value, list) else value
