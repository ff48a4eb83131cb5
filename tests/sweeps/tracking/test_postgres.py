"""A real PostgreSQL as MLflow's database."""

from __future__ import annotations

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


def test_a_study_is_tracked_in_postgresql(server: PostgresServer, tmp_path: Path, make_record) -> None:
    uri = server.new_database()
    toy = ToyRun(tmp_path / "toy").begin()
    tracker = toy.tracker(uri=uri)
    toy.record(tracker, make_record(0, 2, State.DONE))
    tracker.finished(complete=True)
    assert tracker.close(PATIENCE_SECONDS).runs == 0
    assert toy.statuses(uri) == {"toy": "FINISHED", "trial-0": "FINISHED"}
