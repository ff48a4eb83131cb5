"""Which model is logged: the chosen configuration's, at its end or at an earlier epoch."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from analysis.findings import Findings
from analysis.points.configurations import AtEpoch, Configuration, configurations
from analysis.records import RunRecords
from sweeps.tracking.model.chosen import NOTE_FILE, WEIGHTS_FILE, chosen_model
from ubt.config import get_path
from ubt.trials.record import TrialRecord

LIMIT = 10**9


@pytest.fixture
def chosen(tiny_run) -> Configuration:
    (found,) = configurations([tiny_run.record])
    return found


def findings(chosen: Configuration | None, store: Path) -> Findings:
    run = RunRecords.__new__(RunRecords)
    object.__setattr__(run, "store", str(store))
    return Findings(run, (chosen,) if chosen else (), (), chosen)


def test_the_model_at_its_end_has_its_rates_and_its_settings(tiny_run, chosen: Configuration, tmp_path: Path) -> None:
    model = chosen_model(findings(chosen, tiny_run.root), LIMIT)
    assert model is not None
    model.write(tmp_path)
    record: TrialRecord = tiny_run.record
    note = json.loads((tmp_path / NOTE_FILE).read_text())
    assert (note["trial"], note["test"]["asr"], "epoch" in note) == (record.trial, record.test.asr, False)
    assert (tmp_path / WEIGHTS_FILE).stat().st_size > 1000
    assert model.metrics()["model/val_ca"] == record.val.ca
    assert model.params()["defense.kind"] == "ubt"
    assert not set(model.name) & set("/:.%\"'")


def test_the_model_of_an_earlier_epoch_is_there_if_another_trial_has_ended_at_it(
    tiny_run, chosen: Configuration, tmp_path: Path
) -> None:
    record: TrialRecord = tiny_run.record
    stage = next(stage for stage in record.stages if stage.stage == "unlearn")
    epochs = get_path(record.config, "defense.unlearn_epochs")
    at = replace(chosen, at=AtEpoch(epochs, "defense.unlearn_epochs", "unlearn"))
    model = chosen_model(findings(at, tiny_run.root), LIMIT)  # a trial, this one, has ended there
    assert model is not None
    assert (model.key, model.epoch) == (stage.key, epochs)
    model.write(tmp_path)
    note = json.loads((tmp_path / NOTE_FILE).read_text())
    assert (note["epoch"], "test" in note) == (epochs, False)
    assert f"epoch-{epochs}" in model.name
    nowhere = replace(chosen, at=AtEpoch(epochs + 7, "defense.unlearn_epochs", "unlearn"))
    assert chosen_model(findings(nowhere, tiny_run.root), LIMIT) is None


def test_there_is_no_model_without_a_choice_beyond_the_limit_or_where_the_store_has_it_no_longer(
    tiny_run, chosen: Configuration, tmp_path: Path
) -> None:
    assert chosen_model(findings(None, tiny_run.root), LIMIT) is None
    assert chosen_model(findings(chosen, tiny_run.root), 1000) is None
    assert chosen_model(findings(chosen, tmp_path / "empty"), LIMIT) is None
