"""One trial as configured and as assigned to a worker."""

import json

import pytest
from tiny_victim import assign, tiny_trial

from ubt.common.errors import UserError
from ubt.config import validate
from ubt.trials.assignment import Assignment
from ubt.trials.config import TrialConfig
from ubt.trials.metrics import METRICS, Rebound, Retrieval
from ubt.trials.record import State


def test_a_target_must_be_a_class_of_the_data():
    tiny_trial({"victim.attack.target": "boat"}).check_target()
    with pytest.raises(UserError, match=r"victim\.attack\.target: is no class of the data; classes: banana, apple"):
        tiny_trial({"victim.attack.target": "submarine"}).check_target()


@pytest.mark.parametrize(
    ("target", "advice"),
    [
        ("crane", "`crane bird` or `construction crane`"),
        ("bananna", "`banana`"),
        ("Banana", "`banana`"),
        ("qqqq", ""),
    ],
)
def test_classes_that_may_be_meant_are_named(tmp_path, target, advice):
    missing = str(tmp_path / "none")
    data = {"kind": "csv", "labels": missing, "classes": "imagenet", "pairs": missing}
    with pytest.raises(UserError) as told:
        tiny_trial({"victim.data": data, "victim.attack.target": target}).check_target()
    assert (advice or "is no class of the data") in str(told.value)
    assert ("did you mean" in str(told.value)) == bool(advice)


def test_classes_that_cannot_be_read_are_reported_with_the_data_not_with_the_target(tmp_path):
    missing = str(tmp_path / "none")
    data = {"kind": "csv", "labels": missing, "classes": missing, "pairs": missing}
    trial = tiny_trial({"victim.data": data, "victim.attack.target": "submarine"})
    trial.check_target()
    with pytest.raises(UserError, match="none"):
        trial.victim.data.content_key()


def test_the_default_trial_is_ubt_on_scenes_against_badnets():
    trial = TrialConfig()
    assert (trial.victim.data.kind, trial.victim.attack.kind, trial.defense.kind) == ("scenes", "badnets", "ubt")
    trial.check_target()


def test_a_metric_is_asked_for_by_name_or_with_its_settings():
    trial = tiny_trial({"metrics": ["retrieval", {"kind": "rebound", "epochs": 5}]})
    assert trial.metrics == (Retrieval(), Rebound(epochs=5))
    assert TrialConfig.model_validate(trial.as_json()) == trial, "spelt out in the record, and read back"
    assert TrialConfig().metrics == ()


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        (
            ["retreival"],
            "metrics.0.kind: unknown metric; "
            "allowed: retrieval, linear_probe, rebound, pac_bayes, asr_all_images (given: 'retreival')",
        ),
        (["retrieval", {"kind": "rebound", "epoch": 2}], "metrics.1.epoch: unknown field (given: 2)"),
        ([{"kind": "pac_bayes", "delta": 1}], "metrics.0.delta: Input should be less than 1"),
        (["rebound", {"kind": "rebound", "epochs": 2}], "metrics: each metric may be asked for once; more than once"),
    ],
)
def test_mistakes_in_metrics_are_reported_by_their_place(metrics, message):
    with pytest.raises(UserError) as caught:
        validate(TrialConfig, {"metrics": metrics}, "toy")
    assert message in str(caught.value)


def test_the_schema_allows_both_ways_to_ask_for_a_metric():
    items = TrialConfig.model_json_schema()["properties"]["metrics"]["items"]
    assert {"enum": [model().kind for model in METRICS]} in items["oneOf"]
    assert {"$ref": "#/$defs/Rebound"} in items["oneOf"]


def test_an_assignment_travels_as_json(tmp_path):
    given = assign(tmp_path, keep_epochs={"overfit": (1, 3)}, commit="abc+")
    assert Assignment.model_validate(json.loads(given.model_dump_json())) == given


def test_a_record_begins_with_what_was_assigned(tmp_path):
    given = assign(tmp_path, {"defense.overfit_epochs": 3}, commit="abc+", seed=4)
    record = given.record(State.FAILED, "the worker died")
    assert (record.study, record.trial, record.seed, record.commit) == ("tiny", "tiny-0", 4, "abc+")
    assert (record.state, record.reason) == ("FAILED", "the worker died")
    assert record.changes == {"defense.overfit_epochs": 3}
    assert record.config == given.config
    assert record.stages == ()
