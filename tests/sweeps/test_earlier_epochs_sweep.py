"""A whole sweep in this process whose front holds earlier epochs: they become trials, and the choice one of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from analysis.findings import find, to_judge, validation_points
from analysis.points.configurations import judged_epochs
from analysis.points.geometry import hypervolume
from analysis.records import read_run
from sweeps.run.export import export
from sweeps.run.finish import SweepEnd
from sweeps.run.folder import latest_run, new_run
from sweeps.run.launch import run_study
from sweeps.run.resume import check_same_study
from sweeps.study.config import StudyConfig
from ubt.artifacts.codec import load_artifact
from ubt.artifacts.store import ArtifactStore
from ubt.testing import TINY
from ubt.trials.record import State, TrialRecord, read_records

pytestmark = pytest.mark.slow

EPOCHS, RATE = "defense.unlearn_epochs", "defense.unlearn_learning_rate"


@pytest.fixture(scope="module")
def folder(tiny_run: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("earlier")
    tiny_run.copy(folder / "store")
    return folder


@pytest.fixture(scope="module")
def given(folder: Path) -> StudyConfig:
    return StudyConfig.model_validate(
        {
            "name": "tiny",
            **TINY,
            "defense": {**TINY["defense"], "unlearn_epochs": 3},
            "search": {"design": "grid", "space": {RATE: [1e-4, 3e-3]}},
            "objectives": {"ca_floor": 1.0},
            "gates": {"clean_accuracy": {"act": "report"}},
            "store": str(folder / "store"),
            "tracking": {"enabled": False},
        }
    )


@pytest.fixture(scope="module")
def swept(given: StudyConfig, folder: Path) -> SweepEnd:
    return run_study(given, new_run(folder / "runs", "tiny"), "inline")


@pytest.fixture(scope="module")
def records(swept: SweepEnd) -> dict[str, TrialRecord]:
    return {record.trial: record for record in read_records(swept.run.records)}


def earlier(records: dict[str, TrialRecord]) -> dict[str, TrialRecord]:
    return {record.label.epoch_of: record for record in records.values() if record.label.epoch_of}


def test_earlier_epochs_of_the_front_become_trials_that_end_there(
    swept: SweepEnd, records: dict[str, TrialRecord]
) -> None:
    assert swept.all_done
    assert earlier(records), "the front has no earlier epoch: the test needs other settings"
    for name, record in earlier(records).items():
        trial, _, epoch = name.partition("@")
        assert record.changes[EPOCHS] == int(epoch)
        assert record.state is State.DONE
        assert record.test is not None
        on_the_way = judged_epochs(records[trial])[int(epoch)].val
        assert on_the_way is not None and record.val is not None
        assert (record.val.asr, record.val.ca) == (on_the_way.asr, on_the_way.ca)  # to the last bit
        assert {stage.stage for stage in record.stages if not stage.reused} == {"unlearn", "evaluate"}


def test_the_front_is_of_trials_that_have_test_rates_and_no_worse_than_that_of_ends(swept: SweepEnd) -> None:
    found = find(read_run(swept.run.path))
    assert to_judge(found) == ()
    assert all(member.at is None and member.test for member in found.front)
    ends = find(replace(found.run, epochs="last", records=tuple(r for r in found.run.records if not r.label.epoch_of)))
    assert swept.summary is not None and swept.summary.chosen is not None
    assert swept.summary.hypervolume >= hypervolume(validation_points(ends.front))
    assert swept.summary.earlier_epochs == len([r for r in found.run.records if r.label.epoch_of])


def test_epochs_csv_says_where_the_front_is(swept: SweepEnd, records: dict[str, TrialRecord]) -> None:
    table = pd.read_csv(swept.run.report / "epochs.csv").set_index(["trial", "epoch"])
    for name, record in earlier(records).items():
        trial, _, epoch = name.partition("@")
        line = table.loc[(trial, int(epoch))]
        last = line[line["stage"] == "unlearn"].iloc[0]
        assert record.test is not None
        assert (last["test_asr"], last["test_ca"]) == (record.test.asr, record.test.ca)


def test_a_resume_has_nothing_to_add(swept: SweepEnd, given: StudyConfig, folder: Path) -> None:
    before = {path: path.read_text() for path in swept.run.records.iterdir()}
    run = latest_run(folder / "runs", "tiny")
    end = run_study(check_same_study(run, given), run, "inline")
    assert end.all_done
    assert {path: path.read_text() for path in run.records.iterdir()} == before


def test_the_model_of_an_earlier_epoch_is_exported_from_the_store(
    swept: SweepEnd, records: dict[str, TrialRecord], folder: Path, tmp_path: Path
) -> None:
    for name, record in earlier(records).items():
        note = export(swept.run.path, tmp_path / f"{record.trial}.safetensors", name)
        unlearn = next(stage for stage in record.stages if stage.stage == "unlearn")
        assert note.origin.key == unlearn.key
        assert load_artifact(ArtifactStore(str(folder / "store")), "unlearn", unlearn.key) is not None
