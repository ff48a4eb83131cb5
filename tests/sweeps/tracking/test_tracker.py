"""A run folder and what MLflow shows of it: during a sweep, after a resume, later."""

import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from conftest import ToyRun

from sweeps.tracking import Tracker, TrackingSettings
from sweeps.tracking.contents import STUDY, RunContents
from sweeps.tracking.ledger import Ledger
from sweeps.tracking.payload import NOTE
from ubt.common.atomic_files import write_whole
from ubt.common.paths import RECORDS_FOLDER
from ubt.trials.record import State, write_record

PATIENCE_SECONDS = 120  # on a busy machine; only a failure takes it


def test_a_sweep_is_found_in_mlflow_afterwards(toy: ToyRun, make_record, monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/venv/bin/ubt", "sweep", "my study.yaml", "--out", "s3://ann:s3cret@host/runs"])
    tracker = toy.tracker()
    for number in range(2):
        for epochs in range(3):
            toy.record(tracker, make_record(number, epochs))
        toy.record(tracker, make_record(number, 3, State.DONE))
    toy.report()
    tracker.finished(complete=True)
    assert tracker.close(PATIENCE_SECONDS).runs == 0
    assert toy.statuses() == dict.fromkeys(("toy", "trial-0", "trial-1"), "FINISHED")
    runs = toy.runs()
    assert runs["toy"].data.metrics["trials/done"] == 2
    assert runs["toy"].data.tags["mlflow.source.name"] == "ubt sweep 'my study.yaml' --out s3://host/runs"
    assert runs["trial-0"].data.params["defense.kind"] == "ubt"
    assert [runs[name].data.tags["front"] for name in ("toy", "trial-0")] == ["trial-0, trial-1", "true"]


def test_what_a_sweep_has_come_to_so_far_is_shown_while_it_runs(toy: ToyRun, make_record, rates, monkeypatch) -> None:
    """Seldom; a trial that another one has pushed off the front is shown again, and one that is as it was is not."""
    monkeypatch.setattr("sweeps.tracking.contents.LIVE_SECONDS", 0.0)
    contents, ledger = RunContents(toy.folder), Ledger(toy.folder)
    worse = make_record(0, 2, State.DONE, val=rates(0.9, 0.25))
    write_record(toy.folder / RECORDS_FOLDER, worse)
    write_record(toy.folder / RECORDS_FOLDER, make_record(2, 1))
    first = contents.differing(STUDY, ledger).payload
    assert (first.status, first.step, first.tags["chosen"]) == ("RUNNING", 1, "trial-0")
    assert first.tags[NOTE].startswith("*The sweep is running")
    assert first.metrics["so_far/hypervolume"] == pytest.approx(0.75 * 0.9)
    assert not first.curves, "it may change yet"
    assert contents.moved() == {"trial-0"}
    write_record(toy.folder / RECORDS_FOLDER, make_record(1, 2, State.DONE, val=rates(0.9, 0.0)))
    contents._outcomes._due = 0.0
    second = contents.differing(STUDY, ledger).payload
    assert (second.step, second.tags["chosen"], second.metrics["front_size"]) == (2, "trial-1", 1)
    assert contents.moved() == {"trial-0", "trial-1"}
    assert contents.differing("trial-0", ledger).payload.tags["front"] == ""
    contents._outcomes._due = time.monotonic() + 3600
    write_record(toy.folder / RECORDS_FOLDER, make_record(3, 2, State.DONE))
    assert contents.differing(STUDY, ledger).payload.step == 2, "it is not due"
    contents.status = "FINISHED"
    assert contents.differing(STUDY, ledger).payload.step == 3
    assert contents.differing(STUDY, ledger).payload.curves


def test_a_trial_that_has_moved_is_sent_again_with_the_study(toy: ToyRun, make_record, rates, monkeypatch) -> None:
    for module in ("contents", "tracker"):
        monkeypatch.setattr(f"sweeps.tracking.{module}.LIVE_SECONDS", 0.0)
    tracker = toy.tracker()
    toy.record(tracker, make_record(0, 2, State.DONE, val=rates(0.9, 0.25)), make_record(1, 2))
    tracker._sender.drain(PATIENCE_SECONDS, lambda runs, reason: None)
    runs = toy.runs()
    assert runs["toy"].info.status == "RUNNING"
    assert runs["toy"].data.tags["chosen"] == "trial-0"
    assert runs["trial-0"].data.tags["chosen"] == "true"
    assert tracker.close(PATIENCE_SECONDS).runs == 0


def test_mlflow_is_not_loaded_before_a_trial_has_news(toy: ToyRun, make_record) -> None:
    before = set(threading.enumerate())
    tracker = toy.tracker()
    assert set(threading.enumerate()) <= before
    toy.record(tracker, make_record(0))
    assert [thread.name for thread in set(threading.enumerate()) - before] == ["ubt-tracking"]
    assert tracker.close(PATIENCE_SECONDS).runs == 0
    assert set(toy.runs()) == {"toy", "trial-0"}


def test_a_resumed_sweep_goes_on_in_the_same_runs(toy: ToyRun, make_record) -> None:
    ids = []
    for state in (State.RUNNING, State.DONE):
        tracker = toy.tracker()
        toy.record(tracker, make_record(0, 2, state))
        tracker.finished(complete=state is State.DONE)
        assert tracker.close(PATIENCE_SECONDS).runs == 0
        ids.append({name: run.info.run_id for name, run in toy.runs().items()})
    assert ids[0] == ids[1]


def test_a_run_folder_of_before_keeps_its_runs_and_sends_what_waited(toy: ToyRun, make_record) -> None:
    """It has an `outbox/` with an identity and events, and nothing that says what was confirmed."""
    write_whole(toy.folder / "outbox" / "identity", "0123456789abcdef")
    write_whole(toy.folder / "outbox" / "0000000007.trial.trial-0.json", "{}")
    tracker = toy.tracker()
    toy.record(tracker, make_record(0, 2, State.DONE))
    tracker.close(PATIENCE_SECONDS)
    assert {run.data.tags["ubt.run"] for run in toy.runs().values()} == {"0123456789abcdef"}


@pytest.mark.parametrize("told", [True, False], ids=["the end was told", "killed without a word"])
def test_nothing_stays_running_of_a_sweep_that_was_cut_off(toy: ToyRun, make_record, told: bool) -> None:
    tracker = toy.tracker()
    toy.record(tracker, make_record(0, 2, State.DONE), make_record(1, 2))
    if told:
        tracker.finished(complete=False)
        assert tracker.close(PATIENCE_SECONDS).runs == 0
    else:
        tracker._sender.drain(PATIENCE_SECONDS, lambda runs, reason: None)
        assert toy.statuses() == {"toy": "RUNNING", "trial-0": "FINISHED", "trial-1": "RUNNING"}
        assert toy.catch_up().runs == 0
    assert toy.statuses() == {"toy": "KILLED", "trial-0": "FINISHED", "trial-1": "KILLED"}
    tracker = toy.tracker()
    toy.record(tracker, make_record(1, 3))
    tracker._sender.drain(PATIENCE_SECONDS, lambda runs, reason: None)
    assert toy.statuses() == {"toy": "RUNNING", "trial-0": "FINISHED", "trial-1": "RUNNING"}
    toy.record(tracker, make_record(1, 3, State.DONE))
    tracker.finished(complete=True)
    assert tracker.close(PATIENCE_SECONDS).runs == 0
    assert set(toy.statuses().values()) == {"FINISHED"}


@pytest.mark.parametrize(
    ("state", "status"), [(State.DONE, "FINISHED"), (State.RUNNING, "KILLED"), (State.INTERRUPTED, "KILLED")]
)
def test_records_tell_how_a_sweep_stands_that_nobody_saw_end(
    tmp_path: Path, make_record, state: State, status: str
) -> None:
    run = ToyRun(tmp_path).begin()
    run.report()
    write_record(tmp_path / RECORDS_FOLDER, make_record(0, 2, State.DONE))
    write_record(tmp_path / RECORDS_FOLDER, make_record(1, 2, state))
    (tmp_path / RECORDS_FOLDER / "trial-2.json").write_text("")  # the disk was full
    assert RunContents(tmp_path).status_by_records == status


def test_with_a_dead_server_nothing_is_lost_and_the_next_one_gets_all(
    toy: ToyRun, make_record, unused_port: int, caplog
) -> None:
    dead = f"http://ann:s3cret@127.0.0.1:{unused_port}"
    tracker = toy.tracker(uri=dead)
    for epochs in range(20):
        toy.record(tracker, *(make_record(number, epochs) for number in range(3)))
    left = tracker.close(PATIENCE_SECONDS)
    assert left.runs == 4
    assert "refused" in left.reason
    assert tracker.uri == f"http://127.0.0.1:{unused_port}"
    assert sum("does not answer" in message for message in caplog.messages) == 1
    kept = "".join(path.read_text() for path in toy.folder.rglob("*") if path.is_file())
    assert "s3cret" not in caplog.text + kept + left.reason
    assert toy.catch_up().runs == 0
    assert set(toy.statuses()) == {"toy", "trial-0", "trial-1", "trial-2"}
    assert toy.runs()["trial-2"].data.metrics["val/asr"] == pytest.approx(1 / 19)


def test_what_mlflow_has_is_not_sent_again_unless_anew(toy: ToyRun, make_record, monkeypatch) -> None:
    from sweeps.tracking.mlflow_sink import MlflowSink

    tracker = toy.tracker()
    toy.record(tracker, make_record(0, 2, State.DONE), make_record(1, 2, State.DONE))
    tracker.finished(complete=True)
    assert tracker.close(PATIENCE_SECONDS).runs == 0
    shown: list[str] = []
    show = MlflowSink.show
    monkeypatch.setattr(
        MlflowSink,
        "show",
        lambda sink, content, files: shown.append(content.subject or "toy") or show(sink, content, files),
    )
    assert toy.catch_up().runs == 0
    assert shown == []
    toy.report(anew=True)
    assert toy.catch_up().runs == 0
    assert shown == ["toy"], "what a new report changes"
    before = {name: run.to_dictionary() for name, run in toy.runs().items()}
    again = Tracker(TrackingSettings(), toy.folder)
    assert again.catch_up(lambda runs, reason: None, anew=True).runs == 0
    assert sorted(shown[1:]) == ["toy", "trial-0", "trial-1"]
    assert {name: run.to_dictionary() for name, run in toy.runs().items()} == before


def test_everything_goes_to_another_database_that_has_nothing(
    toy: ToyRun, make_record, empty_database, tmp_path
) -> None:
    import shutil

    tracker = toy.tracker()
    toy.record(tracker, make_record(0, 2, State.DONE))
    tracker.finished(complete=True)
    assert tracker.close(PATIENCE_SECONDS).runs == 0
    other = f"sqlite:///{shutil.copy(empty_database, tmp_path / 'other.db')}"
    assert toy.catch_up(uri=other).runs == 0
    assert toy.statuses(other) == toy.statuses() == {"toy": "FINISHED", "trial-0": "FINISHED"}


def test_a_description_links_to_trials_also_where_they_come_after_it(toy: ToyRun, make_record) -> None:
    """As in a database that has nothing yet: the study's run is the first, and shown once more at the end."""
    write_record(toy.folder / RECORDS_FOLDER, make_record(0, 2, State.DONE))
    toy.report()
    assert toy.catch_up().runs == 0
    runs = toy.runs()
    assert f"/runs/{runs['trial-0'].info.run_id}?" in runs["toy"].data.tags["mlflow.note.content"]


def test_a_server_that_hangs_delays_nothing(toy: ToyRun, make_record, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "3600")  # who waits for it does not come back
    with socket.create_server(("127.0.0.1", 0)) as silent:
        tracker = toy.tracker(uri=f"http://127.0.0.1:{silent.getsockname()[1]}")
        toy.record(tracker, make_record(0))
        left = tracker.close(0.5)
    assert (left.runs, left.reason) == (2, "")


def test_a_run_folder_that_is_full_costs_only_the_memory_of_what_was_confirmed(
    toy: ToyRun, make_record, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = toy.tracker()
    (toy.folder / "tracked" / "confirmed.jsonl").unlink()
    (toy.folder / "tracked" / "confirmed.jsonl").mkdir()
    toy.record(tracker, make_record(0, 2, State.DONE))
    assert tracker.close(PATIENCE_SECONDS).runs == 0
    assert set(toy.statuses()) == {"toy", "trial-0"}


def test_a_record_that_mlflow_refuses_does_not_block_the_others(toy: ToyRun, make_record, caplog) -> None:
    tracker = toy.tracker()
    toy.record(tracker, make_record(0))
    assert tracker.close(PATIENCE_SECONDS).runs == 0
    tracker = toy.tracker()
    toy.record(tracker, make_record(0, config={"defense": {"suspicious_ratio": 0.99}}), make_record(1))
    left = tracker.close(PATIENCE_SECONDS)
    assert (left.runs, left.refused) == (0, 1)
    assert "trial-1" in toy.runs()
    assert any("refuses" in message and "defense.suspicious_ratio" in message for message in caplog.messages)


def test_a_disabled_tracker_leaves_no_trace(tmp_path: Path, make_record) -> None:
    tracker = ToyRun(tmp_path / "run").tracker(enabled=False)
    tracker.updated(make_record(0))
    tracker.finished(complete=True)
    assert tracker.close().runs == 0
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_that_is_ended_before_its_first_trial_is_not_in_mlflow(toy: ToyRun) -> None:
    assert toy.tracker().close(PATIENCE_SECONDS).runs == 0
    assert toy.runs() == {}


def test_a_run_may_be_moved_before_it_is_sent(toy: ToyRun, make_record, unused_port: int) -> None:
    tracker = toy.tracker(uri=f"http://127.0.0.1:{unused_port}")
    toy.record(tracker, make_record(0, 2, State.DONE))
    toy.report()
    tracker.finished(complete=True)
    assert tracker.close(10).runs == 2
    moved = ToyRun(toy.folder.rename(toy.folder.with_name("moved")))
    assert moved.catch_up().runs == 0
    assert len(list((moved.folder.parent / "mlartifacts").rglob("front.svg"))) == 1
    assert moved.statuses() == {"moved": "FINISHED", "trial-0": "FINISHED"}


def test_tracking_and_telling_load_neither_mlflow_nor_torch(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib\n"
        "from sweeps.tracking import Tracker, TrackingSettings\n"
        f"run = pathlib.Path({str(tmp_path)!r}) / 'run'\n"
        "Tracker(TrackingSettings(enabled=False), run).started()\n"
        "Tracker(TrackingSettings(), run).close(1)\n"
        "print(sorted({'mlflow', 'torch', 'ray', 'sqlalchemy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
