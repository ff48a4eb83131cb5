"""A real PostgreSQL as MLflow's database: used, away for a while, killed, without its password."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ToyRun
from postgres_server import PostgresServer, postgres_server

from ubt.trials.record import State

PATIENCE_SECONDS = 120  # on a busy machine; only a failure takes it


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with postgres_server() as server:
        yield server


@pytest.fixture
def run(tmp_path: Path) -> ToyRun:
    return ToyRun(tmp_path / "toy").begin()


def test_a_study_is_tracked_and_goes_on_there_after_the_server_was_killed(
    server: PostgresServer, run: ToyRun, make_record, caplog
) -> None:
    uri = server.new_database()
    tracker = run.tracker(uri=uri)
    run.record(tracker, make_record(0, 2, State.DONE), make_record(1, 2))
    tracker._sender.drain(PATIENCE_SECONDS, lambda runs, reason: None)
    assert run.statuses(uri) == {"toy": "RUNNING", "trial-0": "FINISHED", "trial-1": "RUNNING"}
    server.kill()
    run.record(tracker, make_record(1, 3, State.DONE))
    try:
        tracker.finished(complete=True)
        left = tracker.close(PATIENCE_SECONDS)
        assert (left.runs, left.advice) == (3, "")
        assert "does not answer" in caplog.text
    finally:
        server.start()
    assert run.catch_up(uri=uri).runs == 0
    assert run.statuses(uri) == dict.fromkeys(("toy", "trial-0", "trial-1"), "FINISHED")


def test_two_sweeps_that_begin_at_once_on_an_empty_database_are_both_there(
    server: PostgresServer, tmp_path: Path, make_record
) -> None:
    uri = server.new_database()
    runs = [ToyRun(tmp_path / name).begin() for name in ("one", "two")]

    def sweep(run: ToyRun) -> None:
        tracker = run.tracker(uri=uri)
        run.record(tracker, make_record(0, 2, State.DONE))
        tracker._sender.drain(PATIENCE_SECONDS, lambda runs, reason: None)
        tracker.finished(complete=True)
        tracker.close(PATIENCE_SECONDS)

    threads = [threading.Thread(target=sweep, args=(run,)) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for run in runs:
        assert run.catch_up(uri=uri).runs == 0
        assert set(run.statuses(uri).values()) == {"FINISHED"}


@pytest.mark.parametrize(
    ("spoil", "advice"),
    [
        (lambda uri: uri.replace("s3cret", "wrong"), "user and password"),
        (lambda uri: uri.replace("ubt:s3cret%2Fpass@", "ubt@"), "user and password"),
        (lambda uri: uri + "_missing", "make the database first"),
    ],
    ids=["wrong password", "no password, as in study.json", "no such database"],
)
def test_what_waiting_does_not_mend_is_told(
    server: PostgresServer, run: ToyRun, make_record, caplog, spoil, advice: str
) -> None:
    uri = server.new_database()
    tracker = run.tracker(uri=spoil(uri))
    run.record(tracker, make_record(0, 2, State.DONE))
    left = tracker.close(PATIENCE_SECONDS)
    assert left.runs == 2
    assert advice in left.advice
    assert "cannot be used" in caplog.text
    assert "s3cret" not in caplog.text
