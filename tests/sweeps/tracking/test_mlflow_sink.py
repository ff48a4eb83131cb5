from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from sweeps.tracking.config import TrackingSettings, artifacts_folder
from sweeps.tracking.delivery import Sink
from sweeps.tracking.events import RefusedError, StudyFinished, StudyStarted, TrialUpdated, UnavailableError
from ubt.trials.record import State

DOCUMENT = {"name": "toy", "victim": {"seed": 1}, "defense": {"kind": "ubt", "suspicious_ratio": 0.3}}


@pytest.fixture
def connect(run_folder: Path) -> Callable[..., Sink]:
    from sweeps.tracking.mlflow_sink import MlflowSink

    uri = TrackingSettings().address(run_folder)

    def open_connection(identity: str = "one", experiment: str = "ubt") -> Sink:
        return MlflowSink(uri, experiment, artifacts_folder(uri, run_folder), run_folder, identity)

    return open_connection


@pytest.fixture
def mlflow(run_folder: Path, empty_database: Path) -> SimpleNamespace:
    """MLflow as its user sees it: runs by name."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(TrackingSettings().address(run_folder))

    def runs() -> dict:
        (experiment,) = [found for found in client.search_experiments() if found.name == "ubt"]
        found = client.search_runs([experiment.experiment_id])
        assert len({run.info.run_name for run in found}) == len(found)
        return {run.info.run_name: run for run in found}

    def history(run, name: str) -> list[tuple[int, float]]:
        return [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, name)]

    def artifacts(run, folder: str | None = None) -> set[str]:
        return {item.path for item in client.list_artifacts(run.info.run_id, folder)}

    return SimpleNamespace(client=client, runs=runs, history=history, artifacts=artifacts)


def test_a_study_is_one_run_with_one_child_a_trial(connect, mlflow, make_record) -> None:
    sink = connect()
    sink.send(StudyStarted(study="toy", document=DOCUMENT))
    for number in range(3):
        sink.send(TrialUpdated(record=make_record(number)))
    runs = mlflow.runs()
    assert set(runs) == {"toy", "trial-0", "trial-1", "trial-2"}
    parent = runs.pop("toy").info.run_id
    assert {run.data.tags["mlflow.parentRunId"] for run in runs.values()} == {parent}


def test_a_trial_shows_parameters_curves_results_and_its_record(connect, mlflow, make_record, run_folder) -> None:
    record = make_record(0, epochs=3, state=State.DONE)
    connect().send(TrialUpdated(record=record, searched=("defense.kind",)))
    run = mlflow.runs()["trial-0"]
    assert run.data.params == {"defense.suspicious_ratio": "0.1", "defense.kind": "ubt"}
    assert mlflow.history(run, "val/asr") == [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3))]
    assert [step for step, _ in mlflow.history(run, "val/ca")] == [1, 2, 3]
    assert run.data.metrics["test.asr"] == 0.5
    assert run.data.metrics["poison.seconds"] == 3.0
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
    text = Path(mlflow.client.download_artifacts(run.info.run_id, "record.json")).read_text()
    assert type(record).model_validate_json(text) == record


def test_artifacts_lie_beside_the_database_wherever_the_process_runs(
    connect, make_record, run_folder, tmp_path, monkeypatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    connect().send(TrialUpdated(record=make_record(0)))
    assert len(list((run_folder.parent / "mlartifacts").rglob("record.json"))) == 1
    assert list(elsewhere.iterdir()) == []
    assert {path.name for path in tmp_path.iterdir()} == {"elsewhere", run_folder.parent.name}, (
        "no folder of another name"
    )


@pytest.mark.parametrize("new_connection", [False, True])
def test_sending_a_record_twice_changes_nothing(connect, mlflow, make_record, new_connection: bool) -> None:
    record, sink = make_record(0, epochs=4, state=State.DONE), connect()
    sink.send(StudyStarted(study="toy", document=DOCUMENT))
    sink.send(TrialUpdated(record=record))
    before = {name: run.to_dictionary() for name, run in mlflow.runs().items()}
    sink = connect() if new_connection else sink
    sink.send(StudyStarted(study="toy", document=DOCUMENT))
    sink.send(TrialUpdated(record=record))
    assert {name: run.to_dictionary() for name, run in mlflow.runs().items()} == before
    run = mlflow.runs()["trial-0"]
    assert all(len(mlflow.history(run, name)) == 1 for name in run.data.metrics if "/" not in name)
    assert len(mlflow.history(run, "val/asr")) == 4


def test_a_trial_s_curve_grows_over_two_connections_without_doubled_points(connect, mlflow, make_record) -> None:
    sink = connect()
    for epochs in (1, 2):
        sink.send(TrialUpdated(record=make_record(0, epochs)))
    sink = connect()
    for epochs in (2, 3, 4):
        sink.send(TrialUpdated(record=make_record(0, epochs)))
    assert [step for step, _ in mlflow.history(mlflow.runs()["trial-0"], "val/asr")] == [1, 2, 3, 4]


def test_a_failed_trial_that_is_run_again_loses_its_reason(connect, mlflow, make_record) -> None:
    sink = connect()
    sink.send(TrialUpdated(record=make_record(0, state=State.FAILED, reason="out of memory")))
    failed = mlflow.runs()["trial-0"]
    assert (failed.info.status, failed.data.tags["reason"]) == ("FAILED", "out of memory")
    sink.send(TrialUpdated(record=make_record(0)))
    assert mlflow.runs()["trial-0"].info.status == "RUNNING"
    connect().send(TrialUpdated(record=make_record(0, state=State.DONE)))
    done = mlflow.runs()["trial-0"]
    assert (done.info.status, done.data.tags["reason"]) == ("FINISHED", "")


def test_the_end_of_a_study_shows_summary_front_and_report(connect, mlflow, make_record, run_folder) -> None:
    report = run_folder / "report"
    (report / "figures").mkdir(parents=True)
    (report / "index.html").write_text("<html>")
    (report / "figures" / "front.svg").write_text("<svg>")
    (report / "front.csv").write_text("trial\n")
    sink = connect()
    sink.send(StudyStarted(study="toy", document=DOCUMENT))
    for number in range(2):
        sink.send(TrialUpdated(record=make_record(number, state=State.DONE)))
    summary = {"counts": {"DONE": 2}, "hypervolume": 0.75, "stages": {"computed": 5, "reused": 3}}
    sink.send(StudyFinished(study="toy", summary=summary, front=("trial-1",), report_folder="report"))
    runs = mlflow.runs()
    assert [runs[name].data.tags["front"] for name in ("trial-0", "trial-1")] == ["false", "true"]
    parent = runs["toy"]
    assert parent.info.status == "FINISHED"
    assert parent.data.params == {
        "victim.seed": "1",
        "defense.kind": "ubt",
        "defense.suspicious_ratio": "0.3",
    }
    expected = {"counts.DONE": 2.0, "hypervolume": 0.75, "stages.computed": 5.0, "stages.reused": 3.0}
    assert parent.data.metrics == expected
    assert mlflow.artifacts(parent) == {"study.json", "front.csv", "report"}
    assert mlflow.artifacts(parent, "report") == {"report/index.html", "report/figures", "report/front.csv"}


def test_a_study_that_goes_on_runs_again(connect, mlflow, make_record) -> None:
    sink = connect()
    sink.send(StudyStarted(study="toy", document=DOCUMENT))
    sink.send(StudyFinished(study="toy", summary={}, front=(), report_folder="no such folder"))
    assert mlflow.runs()["toy"].info.status == "FINISHED"
    connect().send(StudyStarted(study="toy", document=DOCUMENT))
    assert mlflow.runs()["toy"].info.status == "RUNNING"


def test_two_run_folders_with_one_study_name_do_not_mix(connect, mlflow, make_record) -> None:
    connect("one").send(TrialUpdated(record=make_record(0)))
    connect("two").send(TrialUpdated(record=make_record(0, changes={"defense.suspicious_ratio": 0.9})))
    (experiment,) = [found for found in mlflow.client.search_experiments() if found.name == "ubt"]
    assert len(mlflow.client.search_runs([experiment.experiment_id])) == 4


def test_a_changed_parameter_is_refused_for_good(connect, make_record) -> None:
    sink = connect()
    sink.send(TrialUpdated(record=make_record(0)))
    with pytest.raises(RefusedError, match=r"defense\.suspicious_ratio"):
        sink.send(TrialUpdated(record=make_record(0, changes={"defense.suspicious_ratio": 0.9})))


def test_a_run_that_a_timed_out_call_made_twice_is_kept_once(connect, mlflow, make_record) -> None:
    connect().send(TrialUpdated(record=make_record(0)))
    first = mlflow.runs()["trial-0"]
    tags = {name: first.data.tags[name] for name in ("ubt.run", "ubt.trial", "mlflow.parentRunId")}
    mlflow.client.create_run(first.info.experiment_id, tags=tags, run_name="trial-0")
    connect().send(TrialUpdated(record=make_record(0, epochs=3)))
    assert mlflow.runs()["trial-0"].info.run_id == first.info.run_id


def test_more_than_a_batch_is_sent_in_several(connect, mlflow, make_record) -> None:
    changes = {f"defense.field_{number}": number for number in range(230)}
    connect().send(TrialUpdated(record=make_record(0, epochs=130, changes=changes)))
    run = mlflow.runs()["trial-0"]
    assert len(run.data.params) == 230
    assert len(mlflow.history(run, "val/ca")) == 130


def test_a_deleted_experiment_is_said_to_be_deleted(connect, mlflow, make_record) -> None:
    connect().send(TrialUpdated(record=make_record(0)))
    mlflow.client.delete_experiment(mlflow.runs()["trial-0"].info.experiment_id)
    with pytest.raises(UnavailableError, match="was deleted in MLflow"):
        connect()


def test_what_cannot_be_opened_is_unavailable_not_refused(tmp_path: Path) -> None:
    from sweeps.tracking.mlflow_sink import MlflowSink

    (tmp_path / "file").write_text("")
    for uri in (f"sqlite:///{tmp_path}/file/mlflow.db", "http://127.0.0.1:1", "mssql+nodriver://host/db"):
        with pytest.raises(UnavailableError):
            MlflowSink(uri, "ubt", tmp_path, tmp_path, "one").send(StudyStarted(study="toy", document={}))
