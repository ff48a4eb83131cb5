"""Toy records, a socket that nobody serves, and a fresh MLflow database for each test."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sweeps.tracking.delivery import prepare_environment
from ubt.trials.rates import Rates
from ubt.trials.record import EpochRecord, StageRecord, State, TrialRecord

MakeRecord = Callable[..., TrialRecord]


def rates(ca: float, asr: float) -> Rates:
    intervals = {"ca_low": 0.0, "ca_high": 1.0, "asr_low": 0.0, "asr_high": 1.0}
    return Rates(ca=ca, asr=asr, ca_images=100, asr_images=90, triggered_accuracy=0.5, **intervals)


@pytest.fixture
def make_record() -> MakeRecord:
    def make(number: int = 0, epochs: int = 2, state: State = State.RUNNING, **changed: object) -> TrialRecord:
        ratio = (number + 1) / 10
        curve = tuple(
            EpochRecord(epoch=epoch, seconds=1.0, val=rates(0.9, 1 / epoch)) for epoch in range(1, epochs + 1)
        )
        poison = StageRecord(stage="poison", key="a", reused=True, seconds=3.0, diagnostics={"images": 12.0})
        unlearn = StageRecord(stage="unlearn", key="b", reused=False, seconds=2.0, epochs=curve)
        fields = {
            "study": "toy",
            "trial": f"trial-{number}",
            "number": number,
            "seed": 7,
            "config": {"victim": {"seed": 1}, "defense": {"kind": "ubt", "suspicious_ratio": ratio}},
            "changes": {"defense.suspicious_ratio": ratio},
            "state": state,
            "stages": (poison, unlearn),
            "val": rates(0.8, 0.25) if state is State.DONE else None,
            "test": rates(0.7, 0.5) if state is State.DONE else None,
            "poisoned_val": rates(0.9, 1.0),
            "started_at": "2026-01-02T03:04:05+00:00",
            "commit": "abc123+",
            "seconds": 5.0,
        }
        return TrialRecord.model_validate({**fields, **changed})

    return make


@pytest.fixture
def unused_port() -> Iterator[int]:
    """A port that is bound but not listened to: every connection is refused, and nobody else takes it."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made once: MLflow needs seconds for its hundred migrations."""
    prepare_environment()
    from mlflow.tracking import MlflowClient

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def run_folder(tmp_path: Path, empty_database: Path) -> Path:
    """A run folder beside a fresh database, both under a path that an address has to quote."""
    folder = tmp_path / "my?runs%20 #1 [ü]" / "toy"
    folder.mkdir(parents=True)
    shutil.copy(empty_database, folder.parent / "mlflow.db")
    return folder
