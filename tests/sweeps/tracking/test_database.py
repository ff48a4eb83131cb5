"""MLflow's database in a file: whole or not there, even if its making is interrupted, and mended when it is broken."""

import os
import shutil
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from conftest import ToyRun

from sweeps.tracking.database import made_ready, mended_addresses
from sweeps.tracking.delivery import prepare_environment
from sweeps.tracking.faults import BlockedError, UnavailableError, fault_of
from ubt.trials.record import State

PATIENCE_SECONDS = 120  # on a busy machine; only a failure takes it
RUN = "INSERT INTO runs (run_uuid, name, experiment_id) VALUES ('a', 'of another study', 0)"
OLDER = "UPDATE alembic_version SET version_num = '{}'"


def execute(*statements: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        with closing(sqlite3.connect(path)) as database, database:
            for statement in statements:
                database.execute(statement)

    return change


def scribble(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4096 : 4096 * 40] = b"\x07" * (4096 * 39)
    path.write_bytes(content)


def version_before_the_last() -> str:
    from sweeps.tracking import mlflow_sink

    prepare_environment()
    newest, known = mlflow_sink.known_versions()
    return next(iter(known - {newest}))


def half_made(path: Path) -> None:
    """As a kill amid the migrations leaves it: `table … already exists` to a process that goes on with them."""
    execute(OLDER.format(version_before_the_last()), RUN, "DROP TABLE latest_metrics")(path)


def half_made_without_runs(path: Path) -> None:
    """MLflow takes it for one of an older version, which its user has to bring up to date."""
    execute(OLDER.format(version_before_the_last()), "DELETE FROM runs")(path)


def first_tables_only(path: Path) -> None:
    path.unlink(missing_ok=True)
    execute("CREATE TABLE experiments (experiment_id INTEGER)", "CREATE TABLE runs (run_uuid TEXT)")(path)


BROKEN = {
    "zero bytes": lambda path: path.write_bytes(b""),
    "garbage": lambda path: path.write_bytes(b"no database at all " * 500),
    "malformed": scribble,
    "half made, with runs": half_made,
    "half made, without": half_made_without_runs,
    "cut off before the migrations": first_tables_only,
    "a table is missing": execute("DROP TABLE metrics"),
}


@pytest.fixture(autouse=True)
def quick(empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """New databases are copied from the one that was really made; what is made of others, MLflow makes."""
    from sweeps.tracking import mlflow_sink

    make = mlflow_sink.make_database

    def copied(path: Path) -> None:
        if path.exists():
            make(path)
        else:
            shutil.copy(empty_database, path)

    monkeypatch.setattr(mlflow_sink, "make_database", copied)


@pytest.fixture
def database(run_folder: Path) -> Path:
    return run_folder.parent / "mlflow.db"


def rest(path: Path) -> None:
    """Let it look as if it had not been written to for a minute."""
    before = path.stat().st_mtime - 60
    os.utime(path, (before, before))


def others(database: Path) -> set[str]:
    return {path.name for path in database.parent.iterdir()} - {"toy", "mlflow.db", "mlartifacts"}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_database_is_set_aside_and_filled_anew(toy: ToyRun, database, make_record, caplog, kind: str) -> None:
    """By a sweep that goes on as by `ubt track`; the other runs beside it are told how to come back."""
    tracker = toy.tracker()
    toy.record(tracker, make_record(0, 2, State.DONE), make_record(1))
    assert tracker.close(PATIENCE_SECONDS).runs == 0
    BROKEN[kind](database)
    rest(database)
    file = database.stat().st_ino
    tracker = toy.tracker()
    toy.record(tracker, make_record(1, 2, State.DONE))
    tracker.finished(complete=True)
    assert tracker.close(PATIENCE_SECONDS).runs == 0
    assert toy.statuses() == dict.fromkeys(("toy", "trial-0", "trial-1"), "FINISHED")
    (aside,) = others(database)
    assert aside.startswith("mlflow.db.broken-")
    assert (database.parent / aside).stat().st_ino == file
    (told,) = [message for message in caplog.messages if "is broken" in message]
    assert f"`ubt track {database.parent}/*`" in told
    assert "does not answer" not in caplog.text


def test_a_database_that_breaks_or_goes_while_a_sweep_runs_is_filled_anew(toy: ToyRun, database, make_record) -> None:
    tracker = toy.tracker()
    for number, spoil in enumerate((scribble, Path.unlink, execute("DROP TABLE runs"), lambda path: None)):
        toy.record(tracker, make_record(number, 2, State.DONE))
        tracker._sender.drain(PATIENCE_SECONDS, lambda runs, reason: None)
        spoil(database)
    tracker.finished(complete=True)
    assert tracker.close(PATIENCE_SECONDS).runs == 0 or toy.catch_up().runs == 0
    assert set(toy.statuses()) == {"toy", *(f"trial-{number}" for number in range(4))}


@pytest.mark.parametrize("runs", [True, False], ids=["one is left half made", "none is there"])
def test_a_full_disk_while_it_is_made_leaves_nothing(database: Path, monkeypatch, runs: bool) -> None:
    from sweeps.tracking import mlflow_sink

    database.unlink()
    if runs:
        first_tables_only(database)
        rest(database)
    before = {path.name for path in database.parent.iterdir()}

    def full(path: Path) -> None:
        path.write_bytes(b"a part")
        path.with_name(path.name + "-journal").write_bytes(b"a part")
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(mlflow_sink, "make_database", full)
    with pytest.raises(sqlite3.OperationalError) as error:
        made_ready(database)
    assert isinstance(fault_of(error.value), UnavailableError)
    assert {path.name for path in database.parent.iterdir()} == before


def test_what_a_killed_process_left_of_its_making_is_removed_by_the_next(database: Path) -> None:
    database.rename(database.parent / ".mlflow.db.0123abcd")
    (database.parent / ".mlflow.db.0123abcd-journal").touch()
    prepare_environment()
    assert made_ready(database) is None
    assert database.exists()
    assert others(database) == set()


def test_of_many_that_want_it_one_makes_it(tmp_path: Path, empty_database: Path, monkeypatch) -> None:
    from sweeps.tracking import mlflow_sink

    made = []

    def make(path: Path) -> None:
        made.append(path)
        shutil.copy(empty_database, path)

    monkeypatch.setattr(mlflow_sink, "make_database", make)
    threads = [threading.Thread(target=made_ready, args=(tmp_path / "runs" / "mlflow.db",)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1


def test_a_database_that_another_program_makes_right_now_is_left_to_it(database: Path) -> None:
    database.write_bytes(b"")
    with pytest.raises(UnavailableError, match="right now"):
        made_ready(database)
    assert database.exists()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (OLDER.format("of the future"), "a newer MLflow"),
        ("DROP TABLE experiments", None),
    ],
)
def test_a_database_of_a_newer_mlflow_or_of_another_program_is_left_alone(
    database: Path, change: str, reason: str | None
) -> None:
    if reason is None:
        database.unlink()
        change, reason = "CREATE TABLE customers (name TEXT)", "another program's"
    execute(change)(database)
    rest(database)
    before = database.read_bytes()
    with pytest.raises(BlockedError, match=reason):
        made_ready(database)
    assert database.read_bytes() == before


def test_a_whole_database_is_not_touched(database: Path) -> None:
    execute(RUN)(database)
    before = database.read_bytes(), database.stat().st_ino
    assert made_ready(database) is None
    assert (database.read_bytes(), database.stat().st_ino) == before
    assert others(database) == set()


def test_absolute_addresses_of_a_database_that_was_moved_with_its_files_become_relative(tmp_path: Path) -> None:
    """As databases of before have them; those that hold, and those of other places, stay."""
    here = tmp_path / "copied 100%"
    (here / "mlartifacts" / "b" / "artifacts").mkdir(parents=True)
    (tmp_path / "there" / "mlartifacts" / "b").mkdir(parents=True)
    gone, holds = "file:///gone/my%20runs/mlartifacts", (tmp_path / "there" / "mlartifacts").as_uri()
    runs = [f"{gone}/b/artifacts", f"{gone}/not-copied/artifacts", f"{holds}/b/artifacts", "s3://bucket/mlartifacts/b"]
    path = here / "mlflow.db"
    execute(
        "CREATE TABLE experiments (artifact_location TEXT)",
        "CREATE TABLE runs (artifact_uri TEXT)",
        f"INSERT INTO experiments VALUES ('{gone}'), ('{holds}')",
        *(f"INSERT INTO runs VALUES ('{address}')" for address in runs),
    )(path)
    assert mended_addresses(path) == 1
    assert mended_addresses(path) == 0
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT * FROM experiments").fetchall() == [("mlflow-artifacts:/",), (holds,)]
        found = [address for (address,) in database.execute("SELECT * FROM runs")]
    assert found == ["mlflow-artifacts:/b/artifacts", *runs[1:]]
