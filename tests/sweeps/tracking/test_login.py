"""MLflow as groups run it: behind a login, over PostgreSQL, with files on S3. All three are real servers here."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import ToyRun
from postgres_server import PostgresServer, postgres_server
from s3_server import s3_server

from ubt.trials.record import State

pytest.importorskip("flask_wtf", reason="install mlflow[auth] to test with a server that asks for a password")

PATIENCE_SECONDS = 120  # on a busy machine; only a failure takes it
ADMIN, ANN, BOB = ("admin", "adm1n-s3cret-word"), ("ann", "ann-s3cret-word"), ("bob", "bob-s3cret-word")
SETTINGS = """
[mlflow]
default_permission = READ
database_uri = sqlite:///{folder}/users.db
admin_username = {user}
admin_password = {password}
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
"""


@dataclass(frozen=True)
class Server:
    """MLflow behind a login, and what it keeps its things in."""

    address: str

    def call(self, path: str, body: dict[str, object] | None = None) -> int:
        """Call the server's API as its administrator and return the status; 0 if nothing answers."""
        request = urllib.request.Request(self.address + path, json.dumps(body).encode() if body else None)
        request.add_header("Content-Type", "application/json")
        request.add_header("Authorization", "Basic " + b64encode(":".join(ADMIN).encode()).decode())
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with postgres_server() as server:
        yield server


@pytest.fixture(scope="module")
def s3() -> Iterator[Any]:
    with s3_server("mlflow") as client:
        yield client


def names_on(s3: Any, bucket: str) -> set[str]:
    """Return the names of the files that lie on S3."""
    return {item["Key"].rpartition("/")[2] for item in s3.list_objects_v2(Bucket=bucket).get("Contents", [])}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, postgres: PostgresServer, s3: Any) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("login")
    (folder / "auth.ini").write_text(SETTINGS.format(folder=folder, user=ADMIN[0], password=ADMIN[1]))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with (folder / "log").open("wb") as log:
        words = ["server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1", "--app-name", "basic-auth"]
        environment = {
            "MLFLOW_BACKEND_STORE_URI": postgres.new_database(),  # not on the command line, where all users see it
            "MLFLOW_ARTIFACTS_DESTINATION": "s3://mlflow/files",
            "MLFLOW_AUTH_CONFIG_PATH": str(folder / "auth.ini"),
            "MLFLOW_FLASK_SERVER_SECRET_KEY": "for these tests alone",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # three processes fewer
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", *words],
            env={**os.environ, **environment},
            stdout=log,
            stderr=log,
            cwd=folder,
            start_new_session=True,
        )
        there = Server(f"http://127.0.0.1:{port}")
        try:
            deadline = time.monotonic() + PATIENCE_SECONDS
            while there.call("/health") != 200:
                assert process.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()[-3000:]
                time.sleep(0.2)
            for user, password in (ANN, BOB):
                assert there.call("/api/2.0/mlflow/users/create", {"username": user, "password": password}) == 200
            yield there
        finally:
            os.killpg(process.pid, 15)
            process.wait(30)


def log_in(environment: pytest.MonkeyPatch, user: str, password: str) -> None:
    environment.setenv("MLFLOW_TRACKING_USERNAME", user)
    environment.setenv("MLFLOW_TRACKING_PASSWORD", password)


def tracked(run: ToyRun, make_record, **settings: object):
    """Track a run of two trials with a report, as a sweep does, and return what is left of it."""
    tracker = run.tracker(**settings)
    run.record(tracker, make_record(0, 2, State.DONE), make_record(1, 2, State.DONE))
    run.report()
    tracker.finished(complete=True)
    return tracker.close(PATIENCE_SECONDS)


def all_text_of(folder: Path) -> str:
    return "".join(path.read_text(errors="replace") for path in folder.rglob("*") if path.is_file())


@pytest.mark.clusters
def test_a_run_goes_to_postgresql_and_s3_through_the_login_that_the_environment_has(
    server: Server, s3: Any, tmp_path: Path, make_record, monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    log_in(monkeypatch, *ANN)
    run = ToyRun(tmp_path / "mine").begin(tracking={"uri": server.address, "experiment": "ann"})
    left = tracked(run, make_record, uri=server.address, experiment="ann")
    assert (left.runs, left.refused) == (0, 0), left
    from mlflow.tracking import MlflowClient

    client = MlflowClient(server.address)
    experiment = client.get_experiment_by_name("ann")
    runs = {
        found.data.tags.get("ubt.trial", found.info.run_name): found
        for found in client.search_runs([experiment.experiment_id])
    }
    assert {name: found.info.status for name, found in runs.items()} == dict.fromkeys(
        ("mine", "trial-0", "trial-1"), "FINISHED"
    )
    assert names_on(s3, "mlflow") >= {"study.json", "summary.json", "front.csv"}
    assert {item.path for item in client.list_artifacts(runs["mine"].info.run_id)} >= {"report", "study.json"}
    assert ANN[1] not in all_text_of(run.folder) + caplog.text


@pytest.mark.clusters
def test_a_wrong_password_is_told_with_the_variables_that_mend_it_and_all_is_sent_later(
    server: Server, tmp_path: Path, make_record, monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    log_in(monkeypatch, ANN[0], "wr0ng-word")
    run = ToyRun(tmp_path / "later").begin()
    left = tracked(run, make_record, uri=server.address, experiment="later")
    assert left.runs == 3
    assert "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD" in left.advice
    assert "cannot be used" in caplog.text
    assert "wr0ng-word" not in caplog.text + all_text_of(run.folder)
    log_in(monkeypatch, *ANN)
    assert run.catch_up(uri=server.address, experiment="later").runs == 0


@pytest.mark.clusters
def test_an_experiment_of_somebody_else_is_told_for_what_it_is(
    server: Server, tmp_path: Path, make_record, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_in(monkeypatch, *ANN)
    assert tracked(ToyRun(tmp_path / "ann").begin(), make_record, uri=server.address, experiment="of-ann").runs == 0
    log_in(monkeypatch, *BOB)
    left = tracked(ToyRun(tmp_path / "bob").begin(), make_record, uri=server.address, experiment="of-ann")
    assert left.runs == 3
    assert "permission" in left.advice
    assert "tracking.experiment" in left.advice
