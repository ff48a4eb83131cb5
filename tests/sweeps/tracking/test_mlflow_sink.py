"""What MLflow shows of contents: runs, parameters, curves, artifacts; each once, however often it is sent."""

from collections.abc import Callable
from types import SimpleNamespace

import pytest
from conftest import ToyRun

from sweeps.tracking.config import TrackingSettings
from sweeps.tracking.contents import STUDY, RunContents
from sweeps.tracking.delivery import Sink
from sweeps.tracking.faults import BlockedError, RefusedError, fault_of
from sweeps.tracking.ledger import Ledger
from ubt.common.paths import RECORDS_FOLDER
from ubt.trials.record import State, TrialRecord, write_record


class Sending:
    """One connection, over which a run folder is sent."""

    def __init__(self, toy: ToyRun, sink: Sink) -> None:
        self.sink, self.contents = sink, RunContents(toy.folder)
        self._nothing_known = Ledger(toy.folder)

    def study(self, status: str = "RUNNING") -> None:
        self.contents.status = status
        self._show(STUDY)

    def trial(self, record: TrialRecord) -> None:
        self.contents.at_work = set() if record.state.ended else {record.trial}
        write_record(self.contents.folder / RECORDS_FOLDER, record)
        if STUDY not in self.sink.runs:
            self._show(STUDY)
        self._show(record.trial)

    def _show(self, subject: str) -> None:
        self.sink.show(self.contents.differing(subject, self._nothing_known), files=True)


Connect = Callable[..., Sending]


@pytest.fixture
def connect(toy: ToyRun) -> Connect:
    def open_connection(run: ToyRun = toy, experiment: str = "ubt") -> Sending:
        from sweeps.tracking.mlflow_sink import MlflowSink

        uri, artifacts = TrackingSettings().address(run.folder), TrackingSettings().artifact_address(run.folder)
        return Sending(run, MlflowSink(uri, experiment, artifacts, Ledger(run.folder).identity))

    return open_connection


@pytest.fixture
def mlflow(toy: ToyRun) -> SimpleNamespace:
    """MLflow as its user sees it."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(TrackingSettings().address(toy.folder))

    def history(run, name: str) -> list[tuple[int, float]]:
        return [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, name)]

    def artifacts(run, folder: str = "") -> set[str]:
        root = toy.folder.parent / "mlartifacts" / run.info.run_id / "artifacts"
        return {path.relative_to(root).as_posix() for path in (root / folder).iterdir()}

    return SimpleNamespace(client=client, runs=toy.runs, history=history, artifacts=artifacts)


def test_a_study_is_one_run_with_one_child_a_trial(connect, mlflow, make_record) -> None:
    one = connect()
    for number in range(3):
        one.trial(make_record(number))
    runs = mlflow.runs()
    assert set(runs) == {"toy", "trial-0", "trial-1", "trial-2"}
    parent = runs.pop("toy").info.run_id
    assert {run.data.tags["mlflow.parentRunId"] for run in runs.values()} == {parent}


def test_a_trial_shows_parameters_curves_results_and_its_record(connect, mlflow, make_record, toy: ToyRun) -> None:
    record = make_record(0, epochs=3, state=State.DONE)
    connect().trial(record)
    run = mlflow.runs()["trial-0"]
    assert run.info.run_name == "trial-0 suspicious_ratio=0.1"
    assert run.data.params == {"victim.seed": "1", "defense.suspicious_ratio": "0.1", "defense.kind": "ubt"}
    assert mlflow.history(run, "val/asr") == [(0, 1.0), (1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3))]
    assert [step for step, _ in mlflow.history(run, "val/ca")] == [0, 1, 2, 3]
    assert run.data.metrics["test/asr"] == 0.5
    assert run.data.metrics["time/poison_s"] == 3.0
    shown = {name: run.data.tags[name] for name in ("state", "seed", "commit", "ubt.study", "ubt.trial")}
    assert shown == {
        "state": "DONE",
        "seed": "7",
        "commit": "abc123+",
        "ubt.study": "toy",
        "ubt.trial": "trial-0",
    }
    assert (run.info.status, run.info.end_time - run.info.start_time) == ("FINISHED", 5000)
    assert run.info.start_time == 1767323045000  # 2026-01-02 03:04:05 UTC
    assert run.info.artifact_uri == f"mlflow-artifacts:/{run.info.run_id}/artifacts", "wherever the database lies"
    text = (toy.folder.parent / "mlartifacts" / run.info.run_id / "artifacts" / "record.json").read_text()
    assert type(record).model_validate_json(text) == record


def test_artifacts_lie_beside_the_database_wherever_the_process_runs(
    connect, make_record, run_folder, tmp_path, monkeypatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    connect().trial(make_record(0))
    assert len(list((run_folder.parent / "mlartifacts").rglob("record.json"))) == 1
    assert list(elsewhere.iterdir()) == []
    assert {path.name for path in tmp_path.iterdir()} == {"elsewhere", run_folder.parent.name}, (
        "no folder of another name"
    )


@pytest.mark.parametrize("new_connection", [False, True])
def test_sending_a_record_twice_changes_nothing(connect, mlflow, make_record, new_connection: bool) -> None:
    record, one = make_record(0, epochs=4, state=State.DONE), connect()
    one.trial(record)
    before = {name: run.to_dictionary() for name, run in mlflow.runs().items()}
    one = connect() if new_connection else one
    one.study()
    one.trial(record)
    assert {name: run.to_dictionary() for name, run in mlflow.runs().items()} == before
    run = mlflow.runs()["trial-0"]
    assert all(len(mlflow.history(run, name)) == 1 for name in run.data.metrics if name not in ("val/asr", "val/ca"))
    assert len(mlflow.history(run, "val/asr")) == 5


def test_a_trial_s_curve_grows_over_two_connections_without_doubled_points(connect, mlflow, make_record) -> None:
    one = connect()
    for epochs in (1, 2):
        one.trial(make_record(0, epochs))
    one = connect()
    for epochs in (2, 3, 4):
        one.trial(make_record(0, epochs))
    assert [step for step, _ in mlflow.history(mlflow.runs()["trial-0"], "val/asr")] == [0, 1, 2, 3, 4]


def test_a_failed_trial_that_is_run_again_loses_its_reason(connect, mlflow, make_record) -> None:
    one = connect()
    one.trial(make_record(0, state=State.FAILED, reason="out of memory"))
    failed = mlflow.runs()["trial-0"]
    assert (failed.info.status, failed.data.tags["reason"]) == ("FAILED", "out of memory")
    assert "out of memory" in failed.data.tags["mlflow.note.content"]
    one.trial(make_record(0))
    assert mlflow.runs()["trial-0"].info.status == "RUNNING"
    connect().trial(make_record(0, state=State.DONE))
    done = mlflow.runs()["trial-0"]
    assert (done.info.status, done.data.tags["reason"], done.data.tags["mlflow.note.content"]) == ("FINISHED", "", "")


def test_the_end_of_a_study_shows_choice_front_and_report(connect, mlflow, make_record, rates, toy: ToyRun) -> None:
    one = connect()
    better = {"val": rates(0.9, 0.0), "test": rates(0.8, 0.1)}
    records = [make_record(0, state=State.DONE), make_record(1, state=State.DONE, **better)]
    for record in records:
        one.trial(record)
    toy.report()
    one.study("FINISHED")
    for record in records:
        one.trial(record)
    runs = mlflow.runs()
    assert [runs[name].data.tags.get("front") for name in ("trial-0", "trial-1")] == [None, "true"]
    assert [runs[name].data.tags.get("chosen") for name in ("trial-0", "trial-1")] == [None, "true"]
    parent = runs["toy"]
    assert (parent.info.status, parent.data.tags["chosen"], parent.data.tags["front"]) == (
        "FINISHED",
        "trial-1",
        "trial-1",
    )
    assert parent.data.params == {"victim.seed": "1", "defense.kind": "ubt", "defense.suspicious_ratio": "0.3"}
    shown = {name: parent.data.metrics[name] for name in ("chosen/test_asr", "chosen/test_ca", "poisoned/val_asr")}
    assert shown == {"chosen/test_asr": 0.1, "chosen/test_ca": 0.8, "poisoned/val_asr": 1.0}
    assert [step for step, _ in mlflow.history(parent, "hypervolume")] == [1, 2]
    assert mlflow.history(parent, "hypervolume")[-1][1] == pytest.approx(0.9)
    assert not any("." in name for name in parent.data.metrics)
    assert mlflow.artifacts(parent) == {"study.json", "report", "figures"}
    assert mlflow.artifacts(parent, "report") == {"report/summary.json", "report/figures", "report/front.csv"}
    assert {"figures/front.png", "figures/epochs.png"} == mlflow.artifacts(parent, "figures")
    note = parent.data.tags["mlflow.note.content"]
    assert f"[trial-1](#/experiments/{parent.info.experiment_id}/runs/{runs['trial-1'].info.run_id}?" in note
    assert f"{parent.info.run_id}/artifacts/report/front.csv?" in note
    assert "trial:" not in note
    views = mlflow.client.get_experiment(parent.info.experiment_id).tags
    assert len([name for name in views if name.startswith("mlflow.sharedViewState.ubt-")]) == 2


def test_two_run_folders_with_one_study_name_do_not_mix(connect, mlflow, make_record, toy: ToyRun) -> None:
    other = ToyRun(toy.folder.with_name("toy-2")).begin()
    connect().trial(make_record(0))
    connect(other).trial(make_record(0, config={"defense": {"suspicious_ratio": 0.9}}))
    assert set(toy.runs()) == {"toy", "trial-0"}
    assert set(other.runs()) == {"toy-2", "trial-0"}


def test_a_changed_parameter_is_refused_for_good(connect, make_record) -> None:
    one = connect()
    one.trial(make_record(0))
    with pytest.raises(Exception, match=r"defense\.suspicious_ratio") as refused:
        one.trial(make_record(0, config={"defense": {"suspicious_ratio": 0.9}}))
    assert isinstance(fault_of(refused.value), RefusedError)


@pytest.mark.parametrize("twin", ["toy", "trial-0"])
def test_a_run_that_a_timed_out_call_made_twice_is_kept_once(connect, mlflow, make_record, toy: ToyRun, twin) -> None:
    """The fuller one stays, whichever came first, and the trials are children of the study's that stays."""
    connect().trial(make_record(0))
    first = mlflow.runs()[twin]
    tags = {name: text for name, text in first.data.tags.items() if name in ("ubt.run", "ubt.trial")}
    mlflow.client.create_run(first.info.experiment_id, first.info.start_time - 5, tags, run_name=twin)
    connect().trial(make_record(0, epochs=3))
    assert mlflow.runs()[twin].info.run_id == first.info.run_id
    assert set(toy.statuses()) == {"toy", "trial-0"}


def test_children_of_a_twin_that_was_deleted_get_the_parent_that_stayed(connect, mlflow, make_record, toy) -> None:
    connect().trial(make_record(0))
    child = mlflow.runs()["trial-0"]
    mlflow.client.set_tag(child.info.run_id, "mlflow.parentRunId", "one that was deleted")
    connect()
    assert set(toy.statuses()) == {"toy", "trial-0"}


def test_more_than_a_batch_is_sent_in_several(connect, mlflow, make_record) -> None:
    config = {"defense": {f"field_{number}": number for number in range(231)}}
    connect().trial(make_record(0, epochs=130, config=config))
    run = mlflow.runs()["trial-0"]
    assert len(run.data.params) == 231
    assert len(mlflow.history(run, "val/ca")) == 131


def test_a_deleted_experiment_is_said_to_be_deleted(connect, mlflow, make_record) -> None:
    connect().trial(make_record(0))
    mlflow.client.delete_experiment(mlflow.runs()["trial-0"].info.experiment_id)
    with pytest.raises(BlockedError, match="was deleted in MLflow"):
        connect()
