import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from sweeps.tracking import Tracker, TrackingSettings
from sweeps.ui import serve
from ubt.errors import UserError
from ubt.records import State, TrialRecord


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


@pytest.mark.slow
def test_the_server_takes_a_sweep_shows_it_and_ends_with_us(tmp_path: Path) -> None:
    """Also the way to a remote server: runs, parameters and artifacts over http."""
    tracker = Tracker(TrackingSettings(), tmp_path / "first", "first", {})
    tracker.started()
    assert tracker.close(60) == 0
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        ui = _start_ui(tracker.uri, port)
        try:
            address = next(line for line in ui.stdout if line.startswith("MLflow: ")).split()[1]
            assert address.startswith("http://127.0.0.1:")
            assert not address.endswith(f":{port}")
            _sends_over_http(address, tmp_path / "second")
        finally:
            os.kill(ui.pid, signal.SIGINT)
            rest, _ = ui.communicate(timeout=60)
    assert "ended cleanly" in rest
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"{address}/health", timeout=60)


def _start_ui(uri: str, port: int) -> subprocess.Popen[str]:
    code = (
        "from sweeps.ui import serve\n"
        f"serve({uri!r}, port={port}, show=lambda text: print(text, flush=True))\n"
        "print('ended cleanly', flush=True)"
    )
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def _sends_over_http(address: str, run_folder: Path) -> None:
    from mlflow.tracking import MlflowClient

    record = TrialRecord(
        study="second",
        trial="trial-0",
        number=0,
        seed=0,
        config={},
        changes={"defense.x": 1},
        state=State.DONE,
    )
    tracker = Tracker(TrackingSettings(uri=address), run_folder, "second", {"victim": {"seed": 1}})
    tracker.started()
    tracker.updated(record)
    assert tracker.close(60) == 0
    client = MlflowClient(address)
    (child,) = client.search_runs([client.get_experiment_by_name("ubt").experiment_id], "tags.`ubt.trial` = 'trial-0'")
    assert child.data.params == {"defense.x": "1"}
    artifact = f"{address}/get-artifact?path=record.json&run_uuid={child.info.run_id}"
    with urllib.request.urlopen(artifact, timeout=60) as answer:
        assert TrialRecord.model_validate_json(answer.read()) == record
