"""Contents → MLflow: one run a study with one child run a trial. Only this file and `model/logged.py` import MLflow.

Runs are found again by tags (`ubt.run`, `ubt.trial`), what they hold already is not sent again, and the
points of a curve carry the time that their record says, so that MLflow drops those it has. Sending
twice therefore changes nothing. Uses `MlflowClient` throughout: the fluent API has one active run for the
whole process.

Import it late and in the sender's thread (MLflow takes seconds), after `delivery.prepare_environment`. What its
functions raise, `faults.fault_of` tells apart.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import unquote, urlsplit

import mlflow
import sqlalchemy
from alembic.script import ScriptDirectory
from mlflow.entities import Dataset, DatasetInput, Experiment, InputTag, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.tracking import MlflowClient

from sweeps.tracking.config import RELATIVE, is_remote, local_artifacts, sqlite_address
from sweeps.tracking.contents import STUDY, Content
from sweeps.tracking.faults import BlockedError
from sweeps.tracking.model.chosen import MODEL_FOLDER
from sweeps.tracking.model.logged import LoggedModels
from sweeps.tracking.payload import NOTE, DataInput, Payload
from sweeps.tracking.study_payload import with_addresses
from ubt.common.atomic_files import write_whole

_PARENT, _RUN_NAME = "mlflow.parentRunId", "mlflow.runName"
_BATCH, _POINTS = 100, 800
"""Parameters, tags and points a call; MLflow's limits are 100, 100, 1000, and 1000 together."""


@dataclass
class _Known:
    """A run, and what it is known to hold."""

    run_id: str
    name: str
    artifacts: str
    """Address of its files."""
    start_ms: int
    status: str
    params: dict[str, str]
    metrics: dict[str, float]
    tags: dict[str, str]
    inputs: set[tuple[str, str]]
    """Name and digest."""
    steps: dict[str, int] = field(default_factory=dict)
    """Curve → its last step, of those sent over this connection."""


class MlflowSink:
    """One connection. After a failure make a new one: what this one knows of the runs may be outdated."""

    def __init__(self, uri: str, experiment: str, artifacts: str | None, identity: str) -> None:
        self._identity, self._local = identity, local_artifacts(uri)
        if not is_remote(uri):
            # MLflow tries ten times within 100 seconds before it says that a database does not answer.
            sqlalchemy.create_engine(uri, poolclass=sqlalchemy.pool.NullPool).connect().close()
        self._client = MlflowClient(tracking_uri=uri)
        found = self._find_experiment(experiment, artifacts)
        self._experiment_id, self._experiment_tags = found.experiment_id, dict(found.tags)
        self._runs = self._find_runs()
        self._models = LoggedModels(self._client, self._experiment_id, identity, self._local)

    @property
    def runs(self) -> dict[str, str]:
        """Return the ids of the runs that MLflow has, by subject."""
        return {subject: run.run_id for subject, run in self._runs.items()}

    def show(self, content: Content, files: bool) -> str:
        """Make MLflow show `content`, with its files if they are wanted, and return its run's id.

        The study comes before its trials.
        """
        run = self._run_of(content)
        if content.model:
            self._models.begin(content.model, run.run_id)  # first, as the description has a link to it
        self._log(run, content.payload, content.ended_ms, self._tags(run, content))
        self._log_inputs(run, content.payload.inputs)
        self._set_status(run, content.payload.status, content.ended_ms)
        if files:
            self._write(run, content)
        if content.model:
            self._models.finish(content.model, run.run_id, content.ended_ms)
        if content.model or content.subject == self._models.trial:
            self._models.show_at(run.run_id)
        for name, text in content.of_experiment.items():
            if self._experiment_tags.get(name) != text:
                self._client.set_experiment_tag(self._experiment_id, name, text)
                self._experiment_tags[name] = text
        if content.subject == STUDY and content.payload.status != "RUNNING":
            self._runs = self._find_runs()  # a call that timed out long ago may have made a twin since
        return run.run_id

    def _find_experiment(self, name: str, artifacts: str | None) -> Experiment:
        found = self._client.get_experiment_by_name(name)
        if found is None:
            # MLflow's own default is a folder under the working directory, wherever that is.
            try:
                return self._client.get_experiment(self._client.create_experiment(name, artifacts))
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            return self._find_experiment(name, artifacts)  # another sweep was quicker
        if found.lifecycle_stage != "active":
            raise BlockedError(
                f"experiment `{name}` was deleted in MLflow",
                "restore it there, or choose another `tracking.experiment`",
            )
        return found

    def _find_runs(self) -> dict[str, _Known]:
        """Return the runs of this run folder by subject.

        A call that ran into its time limit may have made a run all the same: of twins the fuller one stays.
        """
        runs: dict[str, _Known] = {}
        for run in sorted(map(_known, _runs_of(self._client, self._experiment_id, self._identity)), key=_emptiness):
            subject = run.tags.get("ubt.trial", STUDY)
            if subject in runs:
                self._client.delete_run(run.run_id)
            else:
                runs[subject] = run
        for subject, run in runs.items():
            if subject != STUDY and STUDY in runs and run.tags.get(_PARENT) != runs[STUDY].run_id:
                self._client.set_tag(run.run_id, _PARENT, runs[STUDY].run_id)
        return runs

    def _run_of(self, content: Content) -> _Known:
        if content.subject in self._runs:
            return self._runs[content.subject]
        # With its tags at once, so that it is found however this call ends.
        tags = {name: text for name, text in content.payload.tags.items() if text and name != NOTE}
        tags |= {"ubt.run": self._identity, "ubt.study": content.study}
        if content.subject != STUDY:
            tags |= {_PARENT: self._runs[STUDY].run_id, "ubt.trial": content.subject}
        made = self._client.create_run(self._experiment_id, content.began_ms, tags, run_name=content.name)
        self._runs[content.subject] = _known(made)
        return self._runs[content.subject]

    def _tags(self, run: _Known, content: Content) -> dict[str, str]:
        """Return the tags that `run` does not show yet."""
        tags = dict(content.payload.tags)
        page = f"#/experiments/{self._experiment_id}/runs/"
        model = self._models.current
        model_page = f"#/experiments/{self._experiment_id}/models/{model.model_id}/artifacts" if model else ""
        tags[NOTE] = with_addresses(tags.get(NOTE, ""), page, run.run_id, self.runs, model_page)
        if not tags[NOTE] and run.tags.get("state") == tags.get("state"):
            del tags[NOTE]  # what is there somebody has written in MLflow
        if content.subject and run.name == content.subject:  # as an earlier version called it
            tags[_RUN_NAME] = run.name = content.name
        return {name: text for name, text in tags.items() if run.tags.get(name, "") != text}

    def _log(self, run: _Known, shown: Payload, at_ms: int, tags: dict[str, str]) -> None:
        """Send what `run` does not show yet; a changed parameter too, which MLflow then refuses."""
        params = {name: text for name, text in shown.params.items() if run.params.get(name) != text}
        metrics = {name: value for name, value in shown.metrics.items() if run.metrics.get(name) != value}
        curves = [point for point in shown.curves if point.step > run.steps.get(point.name, -1)]
        points = [Metric(name, value, at_ms, shown.step) for name, value in metrics.items()]
        points += [Metric(point.name, point.value, point.at_ms or at_ms, point.step) for point in curves]
        self._log_batches(
            run.run_id,
            [Param(name, text) for name, text in params.items()],
            [RunTag(name, text) for name, text in tags.items()],
            points,
        )
        run.params |= params
        run.tags |= tags
        run.metrics |= metrics
        run.steps |= {point.name: point.step for point in curves}

    def _log_batches(self, run_id: str, params: list[Param], tags: list[RunTag], points: list[Metric]) -> None:
        while params or tags or points:
            self._client.log_batch(run_id, points[:_POINTS], params[:_BATCH], tags[:_BATCH], synchronous=True)
            params, tags, points = params[_BATCH:], tags[_BATCH:], points[_POINTS:]

    def _log_inputs(self, run: _Known, inputs: tuple[DataInput, ...]) -> None:
        new = [one for one in inputs if (one.name, one.digest) not in run.inputs]
        if new:
            self._client.log_inputs(run.run_id, [_dataset(one) for one in new])
            run.inputs |= {(one.name, one.digest) for one in new}

    def _set_status(self, run: _Known, status: str, at_ms: int) -> None:
        if status == run.status:
            return
        if status == "RUNNING":
            self._client.update_run(run.run_id, status)
        else:
            self._client.set_terminated(run.run_id, status, at_ms)
        run.status = status

    def _write(self, run: _Known, content: Content) -> None:
        if self._local and run.artifacts.startswith(RELATIVE):
            # MLflow itself would ask a server for it: nothing but one serves such an address.
            folder = self._local / unquote(urlsplit(run.artifacts).path).strip("/")
            for name, text in content.documents.items():
                write_whole(folder / name, text)
            for path in content.folders:
                shutil.copytree(path, folder / path.name, dirs_exist_ok=True)
            self._make(content, folder)
            return
        for name, text in content.documents.items():
            self._client.log_text(run.run_id, text, name)
        for path in content.folders:
            self._client.log_artifacts(run.run_id, str(path), path.name)
        if content.make:
            with TemporaryDirectory(prefix="ubt-mlflow-") as made:
                self._make(content, Path(made))
                self._client.log_artifacts(run.run_id, made)

    def _make(self, content: Content, folder: Path) -> None:
        if content.make:
            content.make(folder)
        if content.model and self._models.current is None:
            content.model.write(folder / MODEL_FOLDER)


def found_in(uri: str, experiment: str, identity: str) -> tuple[str, str, dict[str, str]] | None:
    """Return the ids of a run folder's experiment and study's run, and the experiment's tags; None if it has none."""
    client = MlflowClient(tracking_uri=uri)
    found = client.get_experiment_by_name(experiment)
    if found is None:
        return None
    study = next(
        (run for run in _runs_of(client, found.experiment_id, identity) if "ubt.trial" not in run.data.tags), None
    )
    return (found.experiment_id, study.info.run_id, dict(found.tags)) if study else None


def _runs_of(client: MlflowClient, experiment: str, identity: str) -> Iterator[Run]:
    """Yield the runs of a run folder, the study's among the first."""
    query, order, token = f"tags.`ubt.run` = '{identity}'", ["attributes.start_time ASC"], None
    while True:
        page = client.search_runs([experiment], query, max_results=1000, order_by=order, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def make_database(path: Path) -> None:
    """Make MLflow's database in a file, or bring an older one there up to date, as MLflow does on first use."""
    store = SqlAlchemyStore(sqlite_address(path), RELATIVE)  # type: ignore[no-untyped-call]
    store.engine.dispose()


@cache
def known_versions() -> tuple[str, frozenset[str]]:
    """Return the newest version of a database, and all that this MLflow knows."""
    scripts = ScriptDirectory(str(Path(mlflow.__file__).parent / "store" / "db_migrations"))
    return scripts.get_heads()[0], frozenset(script.revision for script in scripts.walk_revisions())


def _emptiness(run: _Known) -> tuple[int, int, str]:
    return -len(run.params) - len(run.metrics) - len(run.tags), run.start_ms, run.run_id


def _known(run: Run) -> _Known:
    data, inputs = run.data, run.inputs.dataset_inputs if run.inputs else []
    return _Known(
        run.info.run_id,
        run.info.run_name,
        run.info.artifact_uri,
        run.info.start_time,
        run.info.status,
        dict(data.params),
        dict(data.metrics),
        dict(data.tags),
        {(one.dataset.name, one.dataset.digest) for one in inputs},
    )


def _dataset(one: DataInput) -> DatasetInput:
    profile = json.dumps({"num_rows": one.count})
    dataset = Dataset(one.name, one.digest, one.kind, one.source, profile=profile)
    return DatasetInput(dataset, [InputTag("mlflow.data.context", one.context)])
