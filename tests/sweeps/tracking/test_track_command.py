"""`ubt track` and the database side of `ubt ui`: where a run is sent, and how broken databases come back."""

from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ToyRun
from typer.testing import CliRunner

from sweeps.cli.app import app
from sweeps.run import track as module
from sweeps.run.folder import RunFolder
from sweeps.run.track import ready_to_show, runs_in, settings_for, track
from sweeps.tracking import TrackingSettings
from sweeps.tracking.config import sqlite_address
from ubt.common.errors import UserError
from ubt.common.paths import RECORDS_FOLDER
from ubt.trials.record import State, write_record

Ubt = Callable[..., tuple[int, str]]


@pytest.fixture(autouse=True)
def no_address_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture
def ubt() -> Ubt:
    def run(*words: object) -> tuple[int, str]:
        result = CliRunner().invoke(app, [str(word) for word in words])
        if isinstance(result.exception, UserError):
            return 2, str(result.exception)
        return result.exit_code, result.stdout

    return run


@pytest.fixture
def done(toy: ToyRun, make_record) -> ToyRun:
    """A run that has ended and was never sent."""
    for number in range(2):
        write_record(toy.folder / RECORDS_FOLDER, make_record(number, 2, State.DONE))
    toy.report(anew=True)
    return toy


def test_several_runs_are_sent_by_one_command_and_again_with_all(done: ToyRun, ubt: Ubt, make_record) -> None:
    other = ToyRun(done.folder.with_name("toy-2")).begin()
    write_record(other.folder / RECORDS_FOLDER, make_record(7, 2, State.RUNNING))
    status, out = ubt("track", done.folder, other.folder)
    assert (status, out.splitlines()) == (0, [f"{run.folder}: MLflow has everything" for run in (done, other)])
    assert done.statuses() == dict.fromkeys(("toy", "trial-0", "trial-1"), "FINISHED")
    assert other.statuses() == {"toy-2": "KILLED", "trial-7": "KILLED"}
    assert ubt("track", "--all", done.folder)[0] == 0


def test_what_is_in_the_way_is_said_with_what_to_do(done: ToyRun, ubt: Ubt, unused_port: int, monkeypatch) -> None:
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 5.0)
    status, out = ubt("track", done.folder, "--uri", f"http://ann:s3cret@127.0.0.1:{unused_port}")
    assert status == 1
    assert "3 of MLflow's runs are not complete: " in out
    assert "refused" in out
    assert f"`ubt track '{done.folder}'` sends the rest" in out
    assert "s3cret" not in out


def test_the_address_is_the_one_given_else_the_environment_s_else_the_study_s(toy: ToyRun, monkeypatch) -> None:
    toy.begin(tracking={"uri": "postgresql://db.example.org/mlflow", "experiment": "backdoors"})
    assert settings_for(toy.folder)[0].uri == "postgresql://db.example.org/mlflow"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://ann:s3cret@db.example.org/mlflow")
    settings, said_by = settings_for(toy.folder)
    assert (settings.uri, settings.experiment, said_by) == (
        "postgresql://ann:s3cret@db.example.org/mlflow",
        "backdoors",
        "MLFLOW_TRACKING_URI",
    )
    assert settings_for(toy.folder, "http://other:1")[0].uri == "http://other:1"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "./mlruns")
    with pytest.raises(UserError, match="MLFLOW_TRACKING_URI"):
        settings_for(toy.folder)


def test_a_study_that_is_not_tracked_wants_an_address(toy: ToyRun) -> None:
    toy.begin(tracking={"enabled": False})
    with pytest.raises(UserError, match="--uri"):
        settings_for(toy.folder)
    assert settings_for(toy.folder, "http://other:1")[0].enabled


def test_a_run_that_a_sweep_is_at_work_in_is_left_to_it(toy: ToyRun, ubt: Ubt) -> None:
    with RunFolder(toy.folder).taken():
        status, out = ubt("track", toy.folder)
    assert status == 2
    assert "at work" in out
    assert "sends it by itself" in out


def test_what_is_no_run_is_a_mistake(tmp_path: Path, ubt: Ubt) -> None:
    status, out = ubt("track", tmp_path)
    assert status == 2
    assert "no run folder" in out


def test_a_broken_database_that_is_looked_at_is_filled_from_all_runs_beside_it(done: ToyRun, make_record) -> None:
    other = ToyRun(done.folder.with_name("toy-2")).begin()
    write_record(other.folder / RECORDS_FOLDER, make_record(7, 2, State.DONE))
    elsewhere = ToyRun(done.folder.with_name("elsewhere")).begin(tracking={"uri": "http://other:1"})
    database = done.folder.parent / "mlflow.db"
    assert runs_in(database) == [done.folder, other.folder]
    assert elsewhere.folder not in runs_in(database)
    for run in (done, other):
        assert track(run.folder, lambda text: None).runs == 0
    database.write_bytes(b"no database at all " * 500)
    told: list[str] = []
    ready_to_show(TrackingSettings().address(done.folder), told.append)
    assert set(done.statuses()) == {"toy", "trial-0", "trial-1"}
    assert set(other.statuses()) == {"toy-2", "trial-7"}
    (aside,) = database.parent.glob("mlflow.db.broken-*")
    assert aside.read_bytes().startswith(b"no database")


def test_what_cannot_be_looked_at_is_a_mistake(toy: ToyRun) -> None:
    import sqlite3

    database = toy.folder.with_name("customers.db")
    with sqlite3.connect(database) as connection:
        connection.execute("CREATE TABLE customers (name TEXT)")
    with pytest.raises(UserError, match="another program's database"):
        ready_to_show(sqlite_address(database), print)
