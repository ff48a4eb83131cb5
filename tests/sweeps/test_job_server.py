"""What is said to a job server, and what is made of its answers: a server that plays Ray's, and Ray's own client."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
import ray
import yaml

from sweeps.cli import app
from sweeps.detached.jobs import JobServer
from sweeps.detached.launch import launch
from sweeps.study.loading import load_study
from ubt.common.errors import UserError


class Played:
    """A job server: what it was told, and what it answers."""

    def __init__(self) -> None:
        self.submitted: dict[str, Any] = {}
        self.study: dict[str, Any] = {}
        self.stopped: list[str] = []
        self.states = ["RUNNING", "STOPPED"]
        self.refuses = 0

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, object]:  # noqa: PLR0911 — one a request
        """Return status and JSON."""
        if self.refuses:
            return self.refuses, "Unauthorized: Missing authentication token"
        match [method, *path.strip("/").split("/")[1:]]:
            case ["GET", "version"]:
                return 200, {"version": "4", "ray_version": ray.__version__, "ray_commit": "", "session_name": ""}
            case ["GET", "packages", *_]:
                return 404, ""
            case ["PUT", "packages", *_]:
                with zipfile.ZipFile(io.BytesIO(body)) as package:
                    self.study = yaml.safe_load(package.read("study.yaml"))
                return 200, ""
            case ["POST", "jobs"]:
                self.submitted = json.loads(body)
                return 200, {"job_id": "1", "submission_id": self.submitted["submission_id"]}
            case ["POST", "jobs", job, "stop"] if job != "none":
                self.stopped.append(job)
                return 200, {"stopped": True}
            case ["GET", "jobs", job, "logs"] if job != "none":
                return 200, {"logs": "to MLflow at https://ann:s3cret@mlflow\n"}
            case ["GET", "jobs", job] if job != "none":
                state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
                told = {"type": "SUBMISSION", "entrypoint": "", "status": state, "message": "as told"}
                return 200, {**told, "metadata": self.submitted.get("metadata", {})}
        return 404, f"Job {path} does not exist"


@pytest.fixture
def played() -> Played:
    return Played()


@pytest.fixture
def server(played: Played, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Give the server's address; Ray's own variables lead elsewhere."""

    class Handler(BaseHTTPRequestHandler):
        def do(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, answer = played.answer(self.command, self.path, body)
            text = (answer if isinstance(answer, str) else json.dumps(answer)).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_PUT = do_POST = do  # noqa: N815

        def log_message(self, *_: object) -> None: ...

    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:1")
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=httpd.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_address[1]}"
    httpd.shutdown()
    httpd.server_close()


def test_a_study_is_launched_as_the_sweep_that_it_would_be_here(server: str, played: Played) -> None:
    study = load_study("smoke", ["tracking.uri=https://ann:s3cret@mlflow.example.org"])
    found = launch(study, server, "s3://bucket/runs/", options=("--resume=auto",), command="ubt launch smoke --resume")
    assert played.study == study.as_json()
    assert played.submitted["entrypoint"] == (
        "exec ubt sweep study.yaml --address auto --out s3://bucket/runs --resume=auto --grace 30"
    )
    assert played.submitted["submission_id"] == found.job
    assert found.run == "s3://bucket/runs/smoke"


def test_what_ray_shows_of_a_job_has_no_password(server: str, played: Played) -> None:
    address = "https://ann:s3cret@mlflow.example.org"
    study = load_study("smoke", [f"tracking.uri={address}"])
    launch(study, server, "~/runs", command=f"ubt launch smoke --set tracking.uri={address}")
    assert "s3cret" not in json.dumps(played.submitted)
    assert "mlflow.example.org" in json.dumps(played.submitted), "or the test would find nothing"


def test_ray_waits_longer_for_the_end_of_a_job_than_its_sweep_takes(server: str, played: Played) -> None:
    launch(load_study("smoke"), server, grace_seconds=100)
    assert int(played.submitted["runtime_env"]["env_vars"]["RAY_JOB_STOP_WAIT_TIME_S"]) > 100
    assert played.submitted["entrypoint"].endswith("--out '~/runs' --grace 100")


def test_a_job_is_stopped_and_waited_for(server: str, played: Played) -> None:
    assert JobServer(server).stop("ubt-smoke-1", 10).status == "STOPPED"
    assert played.stopped == ["ubt-smoke-1"]


@pytest.mark.parametrize("words", [["status"], ["logs"], ["stop"]])
def test_a_job_that_is_not_there_is_a_mistake(
    server: str, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ubt(monkeypatch, *words, "none", "--address", server) == 2
    assert "there is no such job on this cluster (given: 'none')" in capsys.readouterr().err


def test_a_cluster_that_asks_for_a_token_is_told_apart(server: str, played: Played) -> None:
    played.refuses = 401
    with pytest.raises(UserError, match="the cluster asks for its token") as caught:
        JobServer(server)
    assert "RAY_AUTH_MODE=token" in str(caught.value)


def test_a_web_server_that_is_no_job_server_is_a_mistake(server: str, played: Played) -> None:
    played.refuses = 404
    with pytest.raises(UserError, match="the job server cannot do that"):
        JobServer(server)


def test_a_log_is_printed_without_passwords(
    server: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ubt(monkeypatch, "logs", "ubt-smoke-1", "--address", server) == 0
    assert capsys.readouterr().out == "to MLflow at https://mlflow\n"


def test_a_job_is_watched_until_it_has_ended(
    server: str, played: Played, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    played.states = ["PENDING", "RUNNING", "RUNNING", "FAILED"]
    words = ["status", "ubt-smoke-1", "--address", server, "--watch", "--every", "0.5"]
    assert ubt(monkeypatch, *words) == 3
    states = [line.rpartition(" ")[2] for line in capsys.readouterr().out.splitlines() if " job " in line]
    assert states == ["PENDING", "RUNNING", "FAILED"], "what has not changed is not printed again"


def ubt(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr("sys.argv", ["ubt", *words])
    try:
        app.main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0
