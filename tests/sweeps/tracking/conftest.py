"""Toy records, a socket that nobody serves, and a fresh MLflow database for each test."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sweeps.tracking import Left, Tracker, TrackingSettings
from sweeps.tracking.database import made_ready
from sweeps.tracking.delivery import prepare_environment
from sweeps.tracking.ledger import Ledger
from ubt.common.atomic_files import write_whole
from ubt.common.paths import RECORDS_FOLDER, REPORT_FOLDER, STUDY_FILE
from ubt.trials.rates import Rates
from ubt.trials.record import EpochRecord, StageRecord, State, TrialRecord, write_record

if TYPE_CHECKING:
    from mlflow.entities import Run

MakeRecord = Callable[..., TrialRecord]


@pytest.fixture(name="rates")
def rates_fixture() -> Callable[[float, float], Rates]:
    return rates


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
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    assert made_ready(path) is None
    return path


@pytest.fixture
def run_folder(tmp_path: Path, empty_database: Path) -> Path:
    """A run folder beside a fresh database, both under a path that an address has to quote."""
    folder = tmp_path / "my?runs%20 #1 [ü]" / "toy"
    folder.mkdir(parents=True)
    shutil.copy(empty_database, folder.parent / "mlflow.db")
    return folder


@dataclass
class ToyRun:
    """A run folder as a sweep leaves it, and what tracks it."""

    folder: Path

    def begin(self, **study: object) -> ToyRun:
        """Write the study down."""
        document = {"name": "toy", "victim": {"seed": 1}, "defense": {"kind": "ubt", "suspicious_ratio": 0.3}}
        space = {"defense.kind": ["ubt"]}
        write_whole(self.folder / STUDY_FILE, json.dumps({**document, "search": {"space": space}, **study}))
        return self

    def tracker(self, **settings: object) -> Tracker:
        """Return what a sweep that begins or goes on here tracks with."""
        tracker = Tracker(TrackingSettings.model_validate(settings), self.folder)
        tracker.started()
        return tracker

    def record(self, tracker: Tracker, *records: TrialRecord) -> None:
        """Write records down, and tell that, as a session does."""
        for record in records:
            write_record(self.folder / RECORDS_FOLDER, record)
            tracker.updated(record)

    def report(self, **summary: object) -> None:
        """Write a report."""
        report = self.folder / REPORT_FOLDER
        write_whole(report / "summary.json", json.dumps(summary))
        write_whole(report / "front.csv", "trial\n")
        write_whole(report / "figures" / "front.svg", "<svg>")

    def catch_up(self, **settings: object) -> Left:
        """Do what `ubt track` does."""
        return Tracker(TrackingSettings.model_validate(settings), self.folder).catch_up(lambda runs, reason: None, 60)

    def runs(self, uri: str | None = None) -> dict[str, Run]:
        """Return MLflow's runs of this folder by the study's or the trial's name; none is there twice."""
        from mlflow.tracking import MlflowClient

        client = MlflowClient(uri or TrackingSettings().address(self.folder))
        experiment = client.get_experiment_by_name("ubt")
        identity = Ledger(self.folder).identity
        found = client.search_runs([experiment.experiment_id], f"tags.`ubt.run` = '{identity}'") if experiment else []
        named = {run.data.tags.get("ubt.trial", run.info.run_name): run for run in found}
        assert len(named) == len(found), "a run is there twice"
        return named

    def statuses(self, uri: str | None = None) -> dict[str, str]:
        """Return the status of each run, which all are the study's or its children."""
        runs = self.runs(uri)
        parents = {run.data.tags.get("mlflow.parentRunId") for run in runs.values()} - {None}
        assert parents <= {run.info.run_id for name, run in runs.items() if name == self.folder.name}
        return {name: run.info.status for name, run in runs.items()}


@pytest.fixture
def toy(run_folder: Path) -> ToyRun:
    """A run that has begun."""
    return ToyRun(run_folder).begin()
