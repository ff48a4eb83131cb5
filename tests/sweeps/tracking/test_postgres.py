"""A real PostgreSQL as MLflow's database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from postgres_server import PostgresServer, postgres_server

from sweeps.tracking import Tracker, TrackingSettings
from ubt.trials.record import State

PATIENCE_SECONDS = 120  # on a busy machine; only a failure takes it


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with postgres_server() as server:
        yield server


def test_a_study_is_tracked_in_postgresql(server: PostgresServer, tmp_path: Path, make_record) -> None:
    from mlflow.tracking import MlflowClient

    uri = server.new_database()
    tracker = Tracker(TrackingSettings(uri=uri), tmp_path / "toy", "toy", {"name": "toy"})
    tracker.started()
    tracker.updated(make_record(0, 2, State.DONE))
    assert tracker.close(PATIENCE_SECONDS) == 0
    client = MlflowClient(uri)
    runs = client.search_runs([client.get_experiment_by_name("ubt").experiment_id])
    assert {run.info.run_name for run in runs} == {"toy", "trial-0"}
