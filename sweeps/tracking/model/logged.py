"""The chosen model among MLflow's models (`LoggedModel`): one a study, with its files, its parameters and its rates.

A server of before MLflow 3 has none; the study's run then has the files among its own.
"""

from __future__ import annotations

import logging
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import unquote, urlsplit

from mlflow.entities import LoggedModel, LoggedModelOutput, LoggedModelStatus, Metric
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from sweeps.tracking.config import RELATIVE
from sweeps.tracking.model.chosen import ChosenModel
from ubt.common.errors import DamagedArtifact

KEY, OF_RUN = "ubt.key", "ubt.run"
"""Tags by which a model is found again: the key of its artifact, and the identity of its run folder."""
_NO_MODELS = frozenset({"ENDPOINT_NOT_FOUND", "RESOURCE_DOES_NOT_EXIST", "NOT_IMPLEMENTED"})

_log = logging.getLogger(__name__)


class LoggedModels:
    """The models of one run folder."""

    def __init__(self, client: MlflowClient, experiment: str, identity: str, local: Path | None) -> None:
        self._client, self._experiment, self._identity, self._local = client, experiment, identity, local
        self.current: LoggedModel | None = None
        """The one that is chosen, as far as this connection knows."""
        self._outputs: set[str] = set()
        """Runs that show it."""

    @property
    def trial(self) -> str | None:
        """Return the trial that the chosen model is of; None if there is none, as far as this connection knows."""
        return self.current.tags.get("trial") if self.current else None

    def begin(self, model: ChosenModel, run_id: str) -> LoggedModel | None:
        """Return the model's entry, which is made if it is missing; None if the server has no models.

        Those of the run folder that were chosen before are deleted, as MLflow deletes: they can be restored.
        """
        try:
            ours = self._client.search_logged_models([self._experiment], f"tags.`{OF_RUN}` = '{self._identity}'")
            same = [one for one in ours if one.tags.get(KEY) == model.key]
            for other in ours:
                if other not in same[:1]:
                    self._client.delete_logged_model(other.model_id)
            self.current = same[0] if same else self._made(model, run_id)
        except MlflowException as error:
            if error.error_code not in _NO_MODELS:
                raise
            self.current = None
        return self.current

    def finish(self, model: ChosenModel, run_id: str, at_ms: int) -> None:
        """Write the model's files, and its rates, unless that was done before."""
        entry = self.current
        if entry is None or entry.status == LoggedModelStatus.READY:
            return
        try:
            self._write(model, entry)
        except DamagedArtifact as error:
            _log.warning("MLflow does not get the chosen model: %s", error)
            self._client.finalize_logged_model(entry.model_id, LoggedModelStatus.FAILED)
            return
        rates = [
            Metric(name, value, at_ms, 0, model_id=entry.model_id, run_id=run_id)
            for name, value in model.metrics().items()
        ]
        self._client.log_batch(run_id, rates, synchronous=True)
        self.current = self._client.finalize_logged_model(entry.model_id, LoggedModelStatus.READY)

    def show_at(self, run_id: str) -> None:
        """Have a run show the model as its output, once."""
        if self.current is None or run_id in self._outputs:
            return
        outputs = self._client.get_run(run_id).outputs
        shown = {one.model_id for one in outputs.model_outputs} if outputs else set()
        if self.current.model_id not in shown:
            self._client.log_outputs(run_id, [LoggedModelOutput(self.current.model_id, step=0)])
        self._outputs.add(run_id)

    def _made(self, model: ChosenModel, run_id: str) -> LoggedModel:
        tags = {KEY: model.key, OF_RUN: self._identity, "trial": model.record.trial}
        return self._client.create_logged_model(
            self._experiment, model.name, run_id, tags, model.params(), model_type="defended"
        )

    def _write(self, model: ChosenModel, entry: LoggedModel) -> None:
        if self._local and entry.artifact_location.startswith(RELATIVE):
            # MLflow itself would ask a server for it: nothing but one serves such an address.
            model.write(self._local / unquote(urlsplit(entry.artifact_location).path).strip("/"))
            return
        with TemporaryDirectory(prefix="ubt-mlflow-") as made:
            model.write(Path(made))
            self._client.log_model_artifacts(entry.model_id, made)
