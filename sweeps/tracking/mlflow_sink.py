"""The only file that imports MLflow: events → one run a study with one child run a trial.

Runs are found again by tags (`ubt.run`, `ubt.trial`), what they hold already is not sent again, and the
points of a curve carry a time that depends on their step only, so that MLflow drops those it has. Sending
twice therefore changes nothing. Uses `MlflowClient` throughout: the fluent API has one active run for the
whole process.

Import it late and in the sender's thread (MLflow takes seconds), after `sender.prepare_environment`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from sqlalchemy.exc import SQLAlchemyError

from sweeps.tracking import payload
from sweeps.tracking.events import Event, RefusedError, StudyFinished, StudyStarted, TrialUpdated, UnavailableError
from sweeps.tracking.payload import Payload
from ubt.trials.record import TrialRecord

_STUDY = ""
"""Key of the parent run among the runs of a study."""
_PERMANENT = frozenset({"INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST"})
"""Errors that no retry mends. Not BAD_REQUEST: any web server that is no MLflow may answer that."""
_BATCH = 100
"""Parameters, tags and points a call; MLflow's limits are 100, 100 and 1000."""

Item = TypeVar("Item")


@dataclass
class _Known:
    """A run, and what it is known to hold."""

    run_id: str
    start_ms: int
    status: str
    params: dict[str, str]
    metrics: dict[str, float]
    tags: dict[str, str]
    points: int = 0
    """Points of curves sent over this connection."""


class MlflowSink:
    """One connection. After a failure make a new one: what this one knows of the runs may be outdated."""

    def __init__(self, uri: str, experiment: str, artifacts: Path | None, run_folder: Path, identity: str) -> None:
        self._run_folder, self._identity = run_folder, identity
        with _translated(permanent=frozenset()):  # no fault of the event that is to be sent
            self._client = MlflowClient(tracking_uri=uri)
            self._experiment_id = self._find_experiment(experiment, artifacts)
            self._runs = self._find_runs()

    def send(self, event: Event) -> None:
        """Make MLflow show what `event` tells.

        Raises:
            UnavailableError: if MLflow cannot take it now.
            RefusedError: if MLflow will never take it.
        """
        with _translated():
            match event:
                case StudyStarted():
                    self._start_study(event)
                case TrialUpdated():
                    self._update_trial(event)
                case StudyFinished():
                    self._finish_study(event)

    def _start_study(self, event: StudyStarted) -> None:
        run = self._parent(event.study, event.at_ms)
        self._log(run, payload.of_study(event.document), event.at_ms)
        self._client.log_dict(run.run_id, event.document, "study.json")
        self._set_status(run, "RUNNING", event.at_ms)

    def _update_trial(self, event: TrialUpdated) -> None:
        record = event.record
        run, shown = self._child(record, event.at_ms), payload.of_trial(record, event.searched)
        self._log(run, shown, event.at_ms)
        self._client.log_text(run.run_id, record.model_dump_json(indent=1) + "\n", "record.json")
        started_ms = _milliseconds(record.started_at)
        ended_ms = started_ms + round(1000 * record.seconds) if started_ms else event.at_ms
        self._set_status(run, shown.status, ended_ms)

    def _finish_study(self, event: StudyFinished) -> None:
        run, shown = self._parent(event.study, event.at_ms), payload.of_summary(event.summary, event.complete)
        self._log(run, shown, event.at_ms)
        self._log(run, Payload(tags={"front": payload.text_of(", ".join(event.front))}), event.at_ms)
        self._send_report(run, self._run_folder / event.report_folder)
        for trial, child in self._runs.items():
            if trial != _STUDY:
                front = "true" if trial in event.front else "false"
                self._log(child, Payload(tags={"front": front}), event.at_ms)
        self._set_status(run, shown.status, event.at_ms)

    def _send_report(self, run: _Known, folder: Path) -> None:
        """Send the report's files as they are now; a report that was removed meanwhile is no failure."""
        if folder.is_dir():
            self._client.log_artifacts(run.run_id, str(folder), "report")
        table = next((path for path in (folder / "front.csv", self._run_folder / "front.csv") if path.exists()), None)
        if table:
            self._client.log_artifact(run.run_id, str(table))

    def _find_experiment(self, name: str, artifacts: Path | None) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is None:
            # MLflow's own default is a folder under the working directory, wherever that is.
            return self._client.create_experiment(name, artifacts.as_uri() if artifacts else None)
        if found.lifecycle_stage != "active":
            raise UnavailableError(
                f"experiment `{name}` was deleted in MLflow; restore it there or choose another name"
            )
        return found.experiment_id

    def _find_runs(self) -> dict[str, _Known]:
        """Return the runs of this run folder by trial.

        A call that ran into its time limit may have made a run all the same: later twins are deleted.
        """
        runs: dict[str, _Known] = {}
        for run in sorted(self._search(), key=lambda run: (run.info.start_time, run.info.run_id)):
            trial = run.data.tags.get("ubt.trial", _STUDY)
            if trial in runs:
                self._client.delete_run(run.info.run_id)
            else:
                runs[trial] = _known(run)
        return runs

    def _search(self) -> Iterator[Run]:
        query, token = f"tags.`ubt.run` = '{self._identity}'", None
        while True:
            page = self._client.search_runs([self._experiment_id], query, max_results=1000, page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    def _parent(self, study: str, at_ms: int) -> _Known:
        return self._runs.get(_STUDY) or self._create(_STUDY, study, at_ms, {"ubt.study": study})

    def _child(self, record: TrialRecord, at_ms: int) -> _Known:
        if record.trial in self._runs:
            return self._runs[record.trial]
        parent = self._parent(record.study, at_ms)
        tags = {"mlflow.parentRunId": parent.run_id, "ubt.study": record.study, "ubt.trial": record.trial}
        return self._create(record.trial, record.trial, _milliseconds(record.started_at) or at_ms, tags)

    def _create(self, key: str, name: str, start_ms: int, tags: dict[str, str]) -> _Known:
        """Make a run with its tags at once, so that it is found however this call ends."""
        tags = {"ubt.run": self._identity, **tags}
        self._runs[key] = _known(self._client.create_run(self._experiment_id, start_ms, tags, run_name=name))
        return self._runs[key]

    def _log(self, run: _Known, shown: Payload, at_ms: int) -> None:
        """Send what `run` does not show yet; a changed parameter too, which MLflow then refuses."""
        params = {name: text for name, text in shown.params.items() if run.params.get(name) != text}
        tags = {name: text for name, text in shown.tags.items() if run.tags.get(name, "") != text}
        metrics = {name: value for name, value in shown.metrics.items() if run.metrics.get(name) != value}
        points = [Metric(name, value, at_ms, 0) for name, value in metrics.items()]
        points += [Metric(p.name, p.value, run.start_ms + p.step, p.step) for p in shown.curves[run.points :]]
        self._log_batches(
            run.run_id,
            [Param(name, text) for name, text in params.items()],
            [RunTag(name, text) for name, text in tags.items()],
            points,
        )
        run.params |= params
        run.tags |= tags
        run.metrics |= metrics
        run.points = max(run.points, len(shown.curves))

    def _log_batches(self, run_id: str, params: list[Param], tags: list[RunTag], points: list[Metric]) -> None:
        for start in range(0, max(len(params), len(tags), len(points)), _BATCH):
            self._client.log_batch(
                run_id, _slice(points, start), _slice(params, start), _slice(tags, start), synchronous=True
            )

    def _set_status(self, run: _Known, status: str, at_ms: int) -> None:
        if status == run.status:
            return
        if status == "RUNNING":
            self._client.update_run(run.run_id, status)
        else:
            self._client.set_terminated(run.run_id, status, at_ms)
        run.status = status


@contextmanager
def _translated(permanent: frozenset[str] = _PERMANENT) -> Iterator[None]:
    """Turn what MLflow, its database and its connection raise into our two faults."""
    try:
        yield
    except MlflowException as error:
        fault = RefusedError if error.error_code in permanent else UnavailableError
        raise fault(str(error)) from error
    except (SQLAlchemyError, OSError) as error:  # requests' exceptions are OSErrors
        raise UnavailableError(f"{type(error).__name__}: {error}") from error
    except ImportError as error:  # a database's driver is imported on the first use
        raise UnavailableError(f"a library is missing: {error}") from error


def _known(run: Run) -> _Known:
    data = run.data
    return _Known(
        run.info.run_id,
        run.info.start_time,
        run.info.status,
        dict(data.params),
        dict(data.metrics),
        dict(data.tags),
    )


def _milliseconds(utc: str) -> int | None:
    """Return an ISO time as MLflow wants it, or None if there is none."""
    try:
        moment = datetime.fromisoformat(utc)
    except ValueError:
        return None
    return round(1000 * (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


def _slice(items: Sequence[Item], start: int) -> Sequence[Item]:
    return items[start : start + _BATCH]
