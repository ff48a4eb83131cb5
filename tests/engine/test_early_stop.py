"""A trial that ends before its last epoch: what its record says, what the store has, and what others make of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tiny_victim import run_trial, tiny_trial

from ubt.artifacts.codec import OPTIMIZER
from ubt.artifacts.store import ArtifactStore
from ubt.engine.graph import build_pipeline
from ubt.engine.pipeline import EarlyStop, StoppedEarly
from ubt.trials.rates import Rates
from ubt.trials.record import EpochRecord, StageRecord, State, TrialRecord
from ubt.trials.stopping import Stopping, StopRule

EPOCHS = {"defense.unlearn_epochs": 3}
BETTER = StopRule(settings=Stopping(grace_epochs=1, ca_floor=None), stage="unlearn", peers={1: ((0.0, 1.0),) * 3})
"""Three trials were as good as can be after one epoch."""


def last(root: Path, **fields: object) -> TrialRecord:
    return run_trial(root, EPOCHS, **fields)[-1]


def rates(record: TrialRecord) -> list[tuple[int, float | None, float]]:
    return [(epoch.epoch, epoch.val.asr, epoch.val.ca) for _, epoch in record.epochs if epoch.val]


def test_a_trial_that_others_are_better_than_ends_with_what_it_has_measured(tiny_run, tmp_path):
    record = last(tiny_run.copy(tmp_path), stopping=BETTER)
    assert record.state is State.PRUNED
    assert record.reason == (
        "after epoch 1 of `unlearn` 3 of the 3 trials that it was compared with came before it by ASR and CA; the best"
        " 2 of 4 go on (search.stopping)"
    )
    assert (record.pruned.epoch, record.pruned.by) == (1, "rank")
    assert (record.stages[-1].stage, record.stages[-1].complete) == ("unlearn", False)
    assert rates(record) == rates(tiny_run.record)[:1]
    assert record.val is None
    assert record.poisoned_val is not None
    assert TrialRecord.model_validate_json(record.model_dump_json()) == record


def test_it_ends_at_the_same_epoch_where_the_store_has_all_of_them(tiny_run, tmp_path):
    root = tiny_run.copy(tmp_path)
    whole = last(root)
    again = last(root, stopping=BETTER)
    computed = last(tiny_run.copy(tmp_path / "other"), stopping=BETTER)
    assert whole.state is State.DONE
    assert (again.state, again.reason, again.pruned) == (computed.state, computed.reason, computed.pruned)
    assert rates(again) == rates(computed) == rates(whole)[:1]
    assert again.stages[-1].reused
    assert not again.stages[-1].complete


def test_an_epoch_that_others_may_go_on_from_is_published_with_what_that_takes(tiny_run, tmp_path):
    root = tiny_run.copy(tmp_path)
    last(root, stopping=BETTER, keep_epochs={"unlearn": (2, 3)})
    node = next(one for one in build_pipeline(tiny_trial(EPOCHS), 0) if one.spec.name == "unlearn")
    manifest = ArtifactStore(root).manifest("unlearn", node.at(1).key)
    assert manifest is not None
    assert OPTIMIZER in manifest.payloads
    went_on, straight = last(root), last(tiny_run.copy(tmp_path / "other"))
    assert went_on.val == straight.val
    assert rates(went_on) == rates(straight)
    assert went_on.stages[-2].spent_seconds < went_on.stages[-2].seconds


def test_a_trial_that_goes_on_from_an_epoch_behind_its_end_ends_as_if_it_had_come_by(tiny_run, tmp_path):
    root = tiny_run.copy(tmp_path)
    run_trial(root, {"defense.unlearn_epochs": 2}, keep_epochs={"unlearn": (2, 3)})
    record = last(root, stopping=BETTER)
    assert (record.state, record.pruned.epoch, len(rates(record))) == (State.PRUNED, 1, 1)


def test_accuracy_is_held_against_that_of_the_poisoned_model():
    node = next(one for one in build_pipeline(tiny_trial(EPOCHS), 0) if one.spec.name == "unlearn")
    early = EarlyStop(StopRule(settings=Stopping(grace_epochs=1, ca_floor=0.1), stage="unlearn"))
    epochs = tuple(EpochRecord(epoch=at, seconds=2, val=judged(ca)) for at, ca in enumerate((0.75, 0.6), 1))
    stage = StageRecord(stage="unlearn", key=node.key, reused=False, seconds=10, epochs=epochs)
    early.check(node, stage, judged(0.7))
    with pytest.raises(StoppedEarly, match=re.escape("more than 10 points below the 80.0 % of the poisoned model")):
        early.check(node, stage, judged(0.8))
    assert early.cut(node, stage, judged(0.8)) == stage.model_copy(update={"complete": False})  # nothing is behind it
    assert early.stops(node, epochs, judged(0.8))
    assert not early.stops(node, epochs[:1], judged(0.8))


def judged(ca: float) -> Rates:
    return Rates(ca=ca, ca_images=400, ca_low=ca - 0.04, ca_high=ca + 0.04)
