"""The only file that imports MLflow: contents → one run a study with one child run a trial.

Runs are found again by tags (`ubt.run`, `ubt.trial`), what they hold already is not sent again, and the
points of a curve carry a time that depends on their step only, so that MLflow drops those it has. Sending
twice therefore changes nothing. Uses `MlflowClient` throughout: the fluent API has one active run for the
whole process.

Import it late and in the sender's thread (MLflow takes seconds), after `delivery.prepare_environment`. What its
functions raise, `faults.fault_of` tells apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeVar

import mlflow
import sqlalchemy
from alembic.script import ScriptDirectory
from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.tracking import MlflowClient

from sweeps.tracking.config import is_remote, sqlite_address
from sweeps.tracking.contents import STUDY, Content
from sweeps.tracking.faults import BlockedError
from sweeps.tracking.payload import Payload

_PARENT = "mlflow.parentRunId"
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

    def __init__(self, uri: str, experiment: str, artifacts: str | None, identity: str) -> None:
        self._identity = identity
        if not is_remote(uri):
            # MLflow tries ten times within 100 seconds before it says that a database does not answer.
            sqlalchemy.create_engine(uri, poolclass=sqlalchemy.pool.NullPool).connect().close()
        self._client = MlflowClient(tracking_uri=uri)
        self._experiment_id = self._find_experiment(experiment, artifacts)
        self._runs = self._find_runs()

    @property
    def runs(self) -> dict[str, str]:
        """Return the ids of the runs that MLflow has, by subject."""
        return {subject: run.run_id for subject, run in self._runs.items()}

    def show(self, content: Content, files: bool) -> str:
        """Make MLflow show `content`, with its files if they are wanted, and return its run's id.

        The study comes before its trials.
        """
        run = self._run_of(content)
        self._log(run, content.payload, content.ended_ms)
        self._set_status(run, content.payload.status, content.ended_ms)
        if files:
            for name, text in content.documents.items():
                self._client.log_text(run.run_id, text, name)
            if content.folder:
                self._client.log_artifacts(run.run_id, str(content.folder), content.folder.name)
        if content.subject == STUDY and content.payload.status != "RUNNING":
            self._runs = self._find_runs()  # a call that timed out long ago may have made a twin since
        return run.run_id

    def _find_experiment(self, name: str, artifacts: str | None) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is None:
            # MLflow's own default is a folder under the working directory, wherever that is.
            try:
                return self._client.create_experiment(name, artifacts)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            return self._find_experiment(name, artifacts)  # another sweep was quicker
        if found.lifecycle_stage != "active":
            raise BlockedError(
                f"experiment `{name}` was deleted in MLflow",
                "restore it there, or choose another `tracking.experiment`",
            )
        return found.experiment_id

    def _find_runs(self) -> dict[str, _Known]:
        """Return the runs of this run folder by subject.

        A call that ran into its time limit may have made a run all the same: of twins the fuller one stays.
        """
        runs: dict[str, _Known] = {}
        for run in sorted(map(_known, self._search()), key=_emptiness):
            subject = run.tags.get("ubt.trial", STUDY)
            if subject in runs:
                self._client.delete_run(run.run_id)
            else:
                runs[subject] = run
        for subject, run in runs.items():
            if subject != STUDY and STUDY in runs and run.tags.get(_PARENT) != runs[STUDY].run_id:
                self._client.set_tag(run.run_id, _PARENT, runs[STUDY].run_id)
        return runs

    def _search(self) -> Iterator[Run]:
        query, token = f"tags.`ubt.run` = '{self._identity}'", None
        while True:
            page = self._client.search_runs([self._experiment_id], query, max_results=1000, page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    def _run_of(self, content: Content) -> _Known:
        if content.subject in self._runs:
            return self._runs[content.subject]
        # With its tags at once, so that it is found however this call ends.
        tags = {**content.payload.tags, "ubt.run": self._identity, "ubt.study": content.study}
        if content.subject != STUDY:
            tags |= {_PARENT: self._runs[STUDY].run_id, "ubt.trial": content.subject}
        made = self._client.create_run(self._experiment_id, content.began_ms, tags, run_name=content.name)
        self._runs[content.subject] = _known(made)
        return self._runs[content.subject]

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


def make_database(path: Path) -> None:
    """Make MLflow's database in a file, or bring an older one there up to date, as MLflow does on first use."""
    store = SqlAlchemyStore(sqlite_address(path), (path.parent / "mlartifacts").as_uri())  # type: ignore[no-untyped-call]
    store.engine.dispose()


@cache
def known_versions() -> tuple[str, frozenset[str]]:
    """Return the newest version of a database, and all that this MLflow knows."""
    scripts = ScriptDirectory(str(Path(mlflow.__file__).parent / "store" / "db_migrations"))
    return scripts.get_heads()[0], frozenset(script.revision for script in scripts.walk_revisions())


def _emptiness(run: _Known) -> tuple[int, int, str]:
    return -len(run.params) - len(run.metrics) - len(run.tags), run.start_ms, run.run_id


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


def _slice(items: Sequence[Item], start: int) -> Sequence[Item]:
    return items[start : start + _BATCH]
