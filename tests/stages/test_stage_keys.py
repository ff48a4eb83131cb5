"""Equal work has an equal key, and other work another: setting by setting."""

from dataclasses import replace
from typing import Literal, get_args, get_origin

import pytest
from tiny_victim import tiny_trial

from ubt.common.errors import UserError
from ubt.config import get_path
from ubt.defenses.ubt import (
    AttributeSettings,
    DetectSettings,
    OverfitSettings,
    ScreenSettings,
    SelectSettings,
    SuspectSettings,
    Ubt,
    UnlearnSettings,
)
from ubt.engine.graph import build_pipeline
from ubt.engine.spec import STAGES, stage_named
from ubt.testing import TINY

DEFENDED = {"unlearn", "evaluate"}
DEPENDENTS = {
    "attribute": (attributed := {"attribute", *DEFENDED}),
    "select": (selected := {"select", *attributed}),
    "overfit": (overfitted := {"overfit", *selected}),
    "detect_clean": {"detect_clean", "suspect", *overfitted},
    "suspect": {"suspect", *overfitted},
    "implant": {"implant", *overfitted},
    "poison": {"poison", "implant", "detect_clean", "suspect", *overfitted},
    "pretrain": {"pretrain", "poison", "implant", "detect_clean", "suspect", *overfitted},
    "unlearn": DEFENDED,
}
"""Stage → every stage whose result may change when a setting of its own does, itself included."""

OWNERS = {
    ScreenSettings: "detect_clean",
    DetectSettings: "detect_clean",
    SuspectSettings: "suspect",
    OverfitSettings: "overfit",
    SelectSettings: "select",
    AttributeSettings: "attribute",
    UnlearnSettings: "unlearn",
}
PARTS = {"data": "pretrain", "model": "pretrain", "pretrain": "pretrain", "attack": "poison", "implant": "implant"}
ELSEWHERE = {
    "victim.implant.min_asr",  # looks at the result and does not change it
    "victim.model.activation",  # counts where it is not what the name says, see tests/models/test_activation.py
    "victim.model.pretrained",  # the rest are other stages, or files: see below
    "victim.model.checkpoint",
    "victim.model.random_weights",
    "victim.implant.checkpoint",
}
OTHERS = {
    "victim.model.name": "RN50",
    "victim.model.precision": "float32",
    "victim.attack.target": "boat",
    "victim.attack.poison_count": 7,
}


def keys(changes=None, seed=0):
    return {node.spec.name: node.key for node in build_pipeline(tiny_trial(changes), seed)}


def changed(changes, seed=0):
    """Return the names of the stages whose keys are not those of the tiny trial."""
    before, after = keys(), keys(changes, seed)
    assert list(before) == list(after)
    return {name for name in before if before[name] != after[name]}


def another(path, value):
    """Return another valid value for a setting."""
    if path in OTHERS:
        return OTHERS[path]
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 12
    if isinstance(value, float):
        return value / 2 or 0.25
    field = Ubt.model_fields[path.removeprefix("defense.")]
    assert get_origin(field.annotation) is Literal, path
    return next(choice for choice in get_args(field.annotation) if choice != value)


def leaves(path):
    """Yield every setting of the tiny trial at or below a path with the stage it belongs to."""
    value = get_path(tiny_trial().as_json(), path)
    if isinstance(value, dict):
        for name in value:
            yield from leaves(f"{path}.{name}")
    elif not path.endswith(".kind") and path not in ELSEWHERE:
        room, part, *_ = path.split(".")
        owner = PARTS[part] if room == "victim" else next(OWNERS[m] for m in OWNERS if part in m.model_fields)
        yield pytest.param(path, owner, id=path)


@pytest.mark.parametrize(("path", "owner"), [*leaves("victim"), *leaves("defense")])
def test_a_setting_changes_the_keys_of_its_stage_and_of_what_follows_from_it_alone(path, owner):
    value = get_path(tiny_trial().as_json(), path)
    assert changed({path: another(path, value)}) == DEPENDENTS[owner]


def test_every_setting_of_the_defense_belongs_to_one_stage():
    own = [name for model in OWNERS for name in model.__annotations__]
    assert len(set(own)) == len(own)
    assert set(own) == set(Ubt.model_fields) - {"kind"}


def test_equal_work_has_an_equal_key_however_it_is_written():
    spelt_out = tiny_trial({"defense.suspicious_ratio": "0.1", "victim.data.noise": 8, "defense.overfit_epochs": 2.0})
    assert {node.spec.name: node.key for node in build_pipeline(spelt_out, 0)} == keys()


def test_the_gate_changes_no_key():
    assert changed({"victim.implant.min_asr": 0.9}) == set()


def test_the_seed_changes_everything_that_is_made_here():
    assert changed({}, seed=1) == set(keys())


def test_another_attack_leaves_the_clean_model_alone():
    assert changed({"victim.attack": {"kind": "sig", "poison_rate": 0.1}}) == DEPENDENTS["poison"]


def test_trials_with_and_without_a_defense_share_the_victim():
    none = keys({"defense": {"kind": "none"}})
    assert all(none[name] == keys()[name] for name in ("pretrain", "poison", "implant"))
    assert none["evaluate"] != keys()["evaluate"]


def test_the_content_of_the_data_is_part_of_the_keys_of_stages_that_need_it():
    nodes = build_pipeline(tiny_trial(), 0, data_key="of other data")
    own = {node.spec.name: node.key for node in nodes}
    assert {name for name, key in keys().items() if own[name] != key} == set(own)
    assert [node.key for node in build_pipeline(tiny_trial(), 0)] == [
        node.key for node in build_pipeline(tiny_trial(), 0, tiny_trial().victim.data.content_key())
    ]


def test_a_new_version_of_a_stage_changes_its_key_and_those_after_it(monkeypatch):
    before = keys()
    newer = replace(STAGES.get("select"), version=STAGES.get("select").version + 1)
    monkeypatch.setitem(STAGES._items, "select", newer)
    stage_named.cache_clear()
    try:
        assert {name for name, key in keys().items() if key != before[name]} == DEPENDENTS["select"]
    finally:
        stage_named.cache_clear()


# Epoch chains


@pytest.mark.parametrize(("stage", "setting"), [("overfit", "overfit_epochs"), ("unlearn", "unlearn_epochs")])
def test_stages_that_differ_in_their_number_of_epochs_are_one_chain(stage, setting):
    def node(epochs, **more):
        changes = {f"defense.{setting}": epochs, **more}
        return next(n for n in build_pipeline(tiny_trial(changes), 0) if n.spec.name == stage)

    assert node(2).chain == node(5).chain
    assert node(2).key != node(5).key
    assert node(5).at(2).key == node(2).key
    assert (node(5).epochs, node(5).at(2).epochs) == (5, 2)
    assert node(2, **{"defense.suspicious_ratio": 0.2}).chain != node(2).chain


def test_a_stage_without_epochs_is_a_chain_of_its_own():
    node = next(n for n in build_pipeline(tiny_trial(), 0) if n.spec.name == "detect_clean")
    assert node.chain == node.key
    assert node.epochs == 0


# Weights from elsewhere


def test_a_loaded_model_does_not_depend_on_data_or_seed():
    def load(changes=None, seed=0):
        changes = {"victim.model.random_weights": True, **(changes or {})}
        return keys(changes, seed)["load"]

    assert load() == load({"victim.data.noise": 3.0}) == load(seed=5) == load({"victim.pretrain.epochs": 9})
    assert load() != load({"victim.model.name": "RN50"})


@pytest.mark.parametrize("place", ["model", "implant"])
def test_a_checkpoint_counts_by_its_content_wherever_it_lies(tmp_path, place):
    stage = {"model": "load", "implant": "implant"}[place]

    def key(name, content):
        path = tmp_path / name
        path.write_bytes(content)
        return keys({f"victim.{place}.checkpoint": str(path)})[stage]

    assert key("a.pt", b"one") == key("b.pt", b"one")
    assert key("a.pt", b"one") != key("c.pt", b"two")
    assert key("a.pt", b"three") not in {key("b.pt", b"one"), key("c.pt", b"two")}, "written again"


@pytest.mark.parametrize("place", ["model", "implant"])
def test_a_checkpoint_that_is_not_there_is_a_user_error(tmp_path, place):
    with pytest.raises(UserError, match=r"none\.pt: cannot be read"):
        keys({f"victim.{place}.checkpoint": str(tmp_path / "none.pt")})


def test_the_tiny_trial_is_not_changed_by_asking():
    before = repr(TINY)
    keys({"defense.suspicious_ratio": 0.5})
    assert repr(TINY) == before
