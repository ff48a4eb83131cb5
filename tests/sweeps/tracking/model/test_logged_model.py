"""The chosen model among MLflow's models: one entry a study, with its files, shown by the study and by its trial."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from sweeps.tracking import TrackingSettings
from sweeps.tracking.config import local_artifacts
from sweeps.tracking.model.logged import LoggedModels
from ubt.common.errors import DamagedArtifact


def model(key: str = "k1", trial: str = "t0", fault: Exception | None = None) -> SimpleNamespace:
    """What is logged: small, and of no stage."""

    def write(folder: Path) -> None:
        if fault:
            raise fault
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(b"weights")

    return SimpleNamespace(
        key=key, name=f"toy-{trial}-cleaned", record=SimpleNamespace(trial=trial), write=write,
        params=lambda: {"defense.kind": "ubt"}, metrics=lambda: {"model/test_asr": 0.1},
    )  # fmt: skip


@pytest.fixture
def place(toy) -> SimpleNamespace:
    """An experiment with a run for a study and one for its trial."""
    address = TrackingSettings().address(toy.folder)
    client = MlflowClient(address)
    experiment = client.create_experiment("ubt", "mlflow-artifacts:/")
    runs = [client.create_run(experiment).info.run_id for _ in range(2)]
    return SimpleNamespace(client=client, experiment=experiment, runs=runs, files=local_artifacts(address))


def models(place: SimpleNamespace) -> LoggedModels:
    return LoggedModels(place.client, place.experiment, "this-run", place.files)


def log(logged: LoggedModels, place: SimpleNamespace, which: SimpleNamespace) -> None:
    logged.begin(which, place.runs[0])
    logged.finish(which, place.runs[0], 1000)
    for run in place.runs:
        logged.show_at(run)


def test_a_model_is_logged_once_with_files_parameters_and_rates_and_both_runs_show_it(place: SimpleNamespace) -> None:
    log(models(place), place, model())
    log(models(place), place, model())  # by another connection: nothing changes
    (found,) = place.client.search_logged_models([place.experiment])
    assert (found.name, found.status, found.source_run_id) == ("toy-t0-cleaned", "READY", place.runs[0])
    assert found.params == {"defense.kind": "ubt"}
    assert [(one.key, one.value) for one in found.metrics] == [("model/test_asr", 0.1)]
    files = place.files / found.artifact_location.removeprefix("mlflow-artifacts:/").lstrip("/")
    assert [path.name for path in files.iterdir()] == ["model.safetensors"]
    for run in place.runs:
        assert [one.model_id for one in place.client.get_run(run).outputs.model_outputs] == [found.model_id]


def test_another_choice_takes_the_place_of_the_one_before(place: SimpleNamespace) -> None:
    log(models(place), place, model())
    logged = models(place)
    log(logged, place, model("k2", "t5"))
    assert [one.name for one in place.client.search_logged_models([place.experiment])] == ["toy-t5-cleaned"]
    assert logged.trial == "t5"


def test_a_model_that_is_damaged_is_an_entry_that_failed_and_no_error(place: SimpleNamespace, caplog) -> None:
    log(models(place), place, model(fault=DamagedArtifact("unlearn k1: altered")))
    assert [one.status for one in place.client.search_logged_models([place.experiment])] == ["FAILED"]
    assert "altered" in caplog.text


def test_a_server_without_models_is_no_error(place: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    error = MlflowException("no such path")
    error.error_code = "ENDPOINT_NOT_FOUND"

    def refuses(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(MlflowClient, "search_logged_models", refuses)
    logged = models(place)
    assert logged.begin(model(), place.runs[0]) is None
    assert logged.trial is None
