"""PostgreSQL as MLflow's database, and files on S3, without a server of MLflow's between them."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import ToyRun
from postgres_server import PASSWORD, postgres_server
from s3_server import s3_server

from ubt.trials.record import State

PATIENCE_SECONDS = 120  # on a busy machine; only a failure takes it


def all_text_of(folder: Path) -> str:
    return "".join(path.read_text(errors="replace") for path in folder.rglob("*") if path.is_file())


def test_files_lie_on_s3_and_the_password_comes_from_the_environment(
    tmp_path: Path, make_record, monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    with postgres_server() as postgres, s3_server("direct") as s3:
        address = postgres.new_database()
        bare = address.replace(address[address.index("//") + 2 : address.index("@") + 1], "")
        settings = {"uri": bare, "artifacts": "s3://direct/files"}
        run = ToyRun(tmp_path / "direct").begin(tracking=settings)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        tracker = run.tracker(**settings)
        run.record(tracker, make_record(0, 2, State.DONE), make_record(1, 2, State.DONE))
        run.report()
        tracker.finished(complete=True)
        assert tracker.close(PATIENCE_SECONDS).runs == 0
        assert run.statuses(address) == dict.fromkeys(("direct", "trial-0", "trial-1"), "FINISHED")
        kept = {item["Key"].rpartition("/")[2] for item in s3.list_objects_v2(Bucket="direct")["Contents"]}
    assert kept >= {"study.json", "summary.json"}
    assert not (tmp_path / "mlartifacts").exists()
    for word in (PASSWORD, PASSWORD.replace("/", "%2F")):
        assert word not in all_text_of(run.folder) + caplog.text
