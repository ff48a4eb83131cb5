import logging
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from sweeps.tracking import Tracker, TrackingSettings
from sweeps.tracking import delivery as outbox_module
from ubt.trials.record import State

DOCUMENT = {"name": "toy", "victim": {}, "defense": {"kind": "ubt"}}

PATIENCE_SECONDS = 120  # on a busy machine; only a failure takes it


def runs_of(run_folder: Path) -> dict:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(TrackingSettings().address(run_folder))
    experiments = [found.experiment_id for found in client.search_experiments()]
    return {run.info.run_name: run for run in client.search_runs(experiments)}


def test_a_sweep_is_found_in_mlflow_afterwards(run_folder: Path, make_record) -> None:
    tracker = Tracker(TrackingSettings(), run_folder, "toy", DOCUMENT, searched=["defense.kind"])
    tracker.started()
    for number in range(2):
        for epochs in range(3):
            tracker.updated(make_record(number, epochs))
        tracker.updated(make_record(number, 3, State.DONE))
    tracker.finished({"hypervolume": float("nan"), "seconds": 2.0}, ["trial-0"], run_folder / "report")
    assert tracker.close(PATIENCE_SECONDS) == 0
    runs = runs_of(run_folder)
    assert {name: run.info.status for name, run in runs.items()} == dict.fromkeys(
        ("toy", "trial-0", "trial-1"), "FINISHED"
    )
    assert runs["toy"].data.metrics == {"seconds": 2.0}
    assert runs["trial-0"].data.params["defense.kind"] == "ubt"
    assert runs["trial-0"].data.tags["front"] == "true"


def test_mlflow_is_not_loaded_before_a_trial_has_news(run_folder: Path, make_record) -> None:
    before = set(threading.enumerate())
    tracker = Tracker(TrackingSettings(), run_folder, "toy", DOCUMENT)
    tracker.started()
    assert set(threading.enumerate()) <= before
    tracker.updated(make_record(0))
    assert [thread.name for thread in set(threading.enumerate()) - before] == ["ubt-tracking"]
    assert tracker.close(PATIENCE_SECONDS) == 0
    assert set(runs_of(run_folder)) == {"toy", "trial-0"}


def test_a_resumed_sweep_goes_on_in_the_same_runs(run_folder: Path, make_record) -> None:
    ids = []
    for state in (State.RUNNING, State.DONE):
        tracker = Tracker(TrackingSettings(), run_folder, "toy", DOCUMENT)
        tracker.started()
        tracker.updated(make_record(0, 2, state))
        assert tracker.close(PATIENCE_SECONDS) == 0
        ids.append({name: run.info.run_id for name, run in runs_of(run_folder).items()})
    assert ids[0] == ids[1]


def test_with_a_dead_server_updates_are_kept_and_delivered_to_the_next(
    run_folder: Path, make_record, unused_port: int, caplog
) -> None:
    dead = TrackingSettings(uri=f"http://ann:s3cret@127.0.0.1:{unused_port}")
    tracker = Tracker(dead, run_folder, "toy", {**DOCUMENT, "tracking": dead.as_json()})
    tracker.started()
    for epochs in range(20):
        for number in range(3):
            tracker.updated(make_record(number, epochs))
    assert tracker.close(PATIENCE_SECONDS) == 4
    assert tracker.uri == f"http://127.0.0.1:{unused_port}"
    assert sum("does not answer" in message for message in caplog.messages) == 1
    kept = "".join(path.read_text() for path in (run_folder / "outbox").iterdir())
    assert "s3cret" not in caplog.text + kept + repr(dead)

    alive = Tracker(TrackingSettings(), run_folder, "toy", DOCUMENT)
    assert alive.close(PATIENCE_SECONDS) == 0
    runs = runs_of(run_folder)
    assert set(runs) == {"toy", "trial-0", "trial-1", "trial-2"}
    assert runs["trial-2"].data.metrics["val/asr"] == pytest.approx(1 / 19)


def test_a_server_that_hangs_delays_nothing(run_folder: Path, make_record, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "3600")  # who waits for it does not come back
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings = TrackingSettings(uri=f"http://127.0.0.1:{silent.getsockname()[1]}")
        tracker = Tracker(settings, run_folder, "toy", DOCUMENT)
        tracker.started()
        tracker.updated(make_record(0))
        assert tracker.close(0.5) == 2


def test_a_full_disk_is_told_once_and_does_not_stop_the_sweep(
    run_folder: Path, make_record, monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(outbox_module, "write_whole", full)
    caplog.set_level(logging.WARNING)
    tracker = Tracker(TrackingSettings(), run_folder, "toy", DOCUMENT)
    for number in range(3):
        tracker.updated(make_record(number))
    assert tracker.close(1) == 0
    assert sum("No space left" in message for message in caplog.messages) == 1


def test_a_record_that_mlflow_refuses_does_not_block_the_others(run_folder: Path, make_record, caplog) -> None:
    tracker = Tracker(TrackingSettings(), run_folder, "toy", DOCUMENT)
    tracker.updated(make_record(0))
    assert tracker.close(PATIENCE_SECONDS) == 0
    tracker = Tracker(TrackingSettings(), run_folder, "toy", DOCUMENT)
    tracker.updated(make_record(0, changes={"defense.suspicious_ratio": 0.99}))
    tracker.updated(make_record(1))
    assert tracker.close(PATIENCE_SECONDS) == 0
    assert "trial-1" in runs_of(run_folder)
    (reason,) = (run_folder / "outbox" / "rejected").glob("*.reason.txt")
    assert "defense.suspicious_ratio" in reason.read_text()


def test_a_disabled_tracker_leaves_no_trace(tmp_path: Path, make_record) -> None:
    tracker = Tracker(TrackingSettings(enabled=False), tmp_path / "run", "toy", DOCUMENT)
    tracker.started()
    tracker.updated(make_record(0))
    tracker.finished({}, [], tmp_path)
    assert tracker.close() == 0
    assert list(tmp_path.iterdir()) == []


def test_the_command_can_be_typed_as_it_is(tmp_path: Path) -> None:
    tracker = Tracker(TrackingSettings(enabled=False), tmp_path / "my run", "toy", DOCUMENT)
    assert tracker.command == f"ubt ui '{tmp_path}/my run'"


def test_a_report_inside_the_run_folder_may_move_with_it(run_folder: Path, make_record, unused_port: int) -> None:
    tracker = Tracker(TrackingSettings(uri=f"http://127.0.0.1:{unused_port}"), run_folder, "toy", DOCUMENT)
    (run_folder / "report").mkdir()
    (run_folder / "report" / "index.html").write_text("<html>")
    tracker.finished({}, [], run_folder / "report")
    assert tracker.close(10) == 1
    moved = run_folder.rename(run_folder.with_name("moved"))
    assert Tracker(TrackingSettings(), moved, "toy", DOCUMENT).close(PATIENCE_SECONDS) == 0
    assert len(list((moved.parent / "mlartifacts").rglob("index.html"))) == 1


def test_tracking_and_telling_load_neither_mlflow_nor_torch(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib\n"
        "from sweeps.tracking import Tracker, TrackingSettings\n"
        f"run = pathlib.Path({str(tmp_path)!r}) / 'run'\n"
        "Tracker(TrackingSettings(enabled=False), run, 'toy', {}).started()\n"
        "Tracker(TrackingSettings(), run, 'toy', {}).close(1)\n"
        "print(sorted({'mlflow', 'torch', 'ray', 'sqlalchemy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
