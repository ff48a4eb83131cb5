import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest
from ports import free_port

from sweeps.cli.ui import serve
from sweeps.tracking import Tracker, TrackingSettings
from ubt.common.atomic_files import write_whole
from ubt.common.errors import UserError
from ubt.common.paths import RECORDS_FOLDER, REPORT_FOLDER, STUDY_FILE
from ubt.trials.record import State, TrialRecord, write_record

PATIENCE_SECONDS = 240

ONE_ANSWER = """
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

class Healthy(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

HTTPServer(("127.0.0.1", int(sys.argv[1])), Healthy).handle_request()
"""
"""Instead of MLflow: ends well when it has been asked once whether it is there."""


def test_a_database_that_does_not_exist_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        serve(f"sqlite:///{tmp_path}/mlflow.db")


def test_a_remote_server_is_only_pointed_at_and_without_its_password() -> None:
    told: list[str] = []
    serve("https://ann:s3cret@host:5000", show=told.append)
    assert told == ["MLflow runs at https://host:5000"]


def test_no_port_at_all_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").touch()
    with pytest.raises(UserError, match="no port"):
        serve(f"sqlite:///{tmp_path}/mlflow.db", port=70_000)


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., list[int]]]:
    """Serve with a program in MLflow's place; the first port is taken as it starts, or not; the ports are returned."""
    with socket.socket() as other:

        def start(folder: Path, program: str, taken: bool) -> list[int]:
            ports: list[int] = []

            @contextmanager
            def server(uri: str, host: str, port: int) -> Iterator[subprocess.Popen[bytes]]:
                if taken and not ports:
                    other.bind((host, port))
                ports.append(port)
                with subprocess.Popen([sys.executable, "-c", program, str(port)]) as process:
                    yield process

            monkeypatch.setattr("sweeps.cli.ui._server", server)
            (folder / "mlflow.db").touch()
            serve(f"sqlite:///{folder}/mlflow.db", port=free_port())
            return ports

        yield start


def test_a_port_that_is_taken_while_mlflow_starts_is_answered_by_the_next(
    starts: Callable[..., list[int]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = starts(tmp_path, ONE_ANSWER, taken=True)
    assert second > first
    shown = capsys.readouterr().out
    assert f"Another program has taken port {first} meanwhile." in shown
    assert f"MLflow: http://127.0.0.1:{second} " in shown
    assert f"MLflow: http://127.0.0.1:{first} " not in shown


@pytest.mark.parametrize("taken", [True, False])
def test_a_server_that_does_not_start_on_a_free_port_is_told(
    starts: Callable[..., list[int]], tmp_path: Path, taken: bool
) -> None:
    with pytest.raises(UserError, match="the server did not start"):
        starts(tmp_path, "raise SystemExit(3)", taken=taken)


@pytest.mark.slow
def test_the_server_takes_a_sweep_shows_it_and_ends_with_us(tmp_path: Path) -> None:
    """Also the way to a remote server: runs, parameters and artifacts over http; of runs that were moved, all files."""
    tracker = begun(tmp_path / "runs" / "first")
    write_whole(tmp_path / "runs" / "first" / REPORT_FOLDER / "figures" / "a b.svg", "<svg>")
    tracker.finished(complete=True)
    assert tracker.close(PATIENCE_SECONDS).runs == 0
    moved = (tmp_path / "runs").rename(tmp_path / "copied 100%? #1")
    port = free_port()
    with socket.create_server(("127.0.0.1", port)), (tmp_path / "err").open("w") as errors:
        ui = _start_ui(TrackingSettings().address(moved / "first"), port, errors)
        try:
            line = next((line for line in ui.stdout if line.startswith("MLflow: ")), "")
            assert line, (tmp_path / "err").read_text()
            address = line.split()[1]
            assert address.startswith("http://127.0.0.1:")
            assert not address.endswith(f":{port}")
            assert _files_over_http(address, tmp_path / "got") == {"study.json", "report/figures/a b.svg"}
            _sends_over_http(address, tmp_path / "second")
        finally:
            os.kill(ui.pid, signal.SIGINT)
            rest, _ = ui.communicate(timeout=PATIENCE_SECONDS)
    assert "ended cleanly" in rest
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"{address}/health", timeout=PATIENCE_SECONDS)


def _files_over_http(address: str, folder: Path) -> set[str]:
    """Return what MLflow has of the study's run, by name: each is had from the server."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(address)
    (run,) = client.search_runs([client.get_experiment_by_name("ubt").experiment_id])
    folder.mkdir()
    got = Path(client.download_artifacts(run.info.run_id, "", str(folder)))
    return {path.relative_to(got).as_posix() for path in got.rglob("*") if path.is_file()}


def begun(run_folder: Path, **settings: object) -> Tracker:
    write_whole(run_folder / STUDY_FILE, '{"victim": {"seed": 1}}')
    tracker = Tracker(TrackingSettings.model_validate(settings), run_folder)
    tracker.started()
    return tracker


def _start_ui(uri: str, port: int, errors: IO[str]) -> subprocess.Popen[str]:
    code = (
        # What a shell starts in the background, as it may these tests, ignores Ctrl-C.
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from sweeps.cli.ui import serve\n"
        f"serve({uri!r}, port={port}, show=lambda text: print(text, flush=True))\n"
        "print('ended cleanly', flush=True)"
    )
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=errors, text=True)


def _sends_over_http(address: str, run_folder: Path) -> None:
    from mlflow.tracking import MlflowClient

    record = TrialRecord(
        study="second",
        trial="trial-0",
        number=0,
        seed=0,
        config={"defense": {"x": 1}},
        changes={"defense.x": 1},
        state=State.DONE,
    )
    tracker = begun(run_folder, uri=address)
    write_record(run_folder / RECORDS_FOLDER, record)
    tracker.updated(record)
    assert tracker.close(PATIENCE_SECONDS).runs == 0
    client = MlflowClient(address)
    (child,) = client.search_runs([client.get_experiment_by_name("ubt").experiment_id], "tags.`ubt.trial` = 'trial-0'")
    assert child.data.params == {"defense.x": "1"}
    artifact = f"{address}/get-artifact?path=record.json&run_uuid={child.info.run_id}"
    with urllib.request.urlopen(artifact, timeout=PATIENCE_SECONDS) as answer:
        assert TrialRecord.model_validate_json(answer.read()) == record
