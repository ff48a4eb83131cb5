"""Where the clean and the poisoned model come from: pretrain, load, implant; and the evaluation at the end."""

from dataclasses import replace

import pytest
import torch

from ubt.attacks.patches import BadNets
from ubt.common.errors import StageFault, UserError
from ubt.engine import epochs
from ubt.engine.poisoning import PoisonManifest
from ubt.models.build import build_clip
from ubt.models.settings import ModelSettings
from ubt.stages import victim
from ubt.stages.suspect import diagnose_suspect

RANDOM = ModelSettings(name="tiny-rn", random_weights=True)


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture
def given(tmp_path):
    """Weights in a file: its path and what it holds."""
    state = build_clip(RANDOM, 8, torch.device("cpu")).state()
    path = tmp_path / "given.pt"
    torch.save(state, path)
    return path, state


def test_pretraining_learns_from_the_clean_pairs_alone(bench, monkeypatch):
    seen = []
    original = epochs.train_on_pairs
    monkeypatch.setattr(
        epochs, "train_on_pairs", lambda clip, pairs, *rest: seen.append(pairs) or original(clip, pairs, *rest)
    )
    context = bench.context("pretrain")
    found = list(victim.pretrain(context))
    assert seen == [context.data.pretrain]
    assert [epoch.number for epoch in found] == [1]
    assert not same(found[0].snapshot().model, build_clip(RANDOM, 0, torch.device("cpu")).state())


def test_pretraining_starts_from_the_weights_of_the_seed(bench, monkeypatch):
    started = []
    monkeypatch.setattr(epochs, "train_on_pairs", lambda clip, *_: started.append(clip) or iter([(1, 0.0)]))
    changes = {"victim.model.precision": "float32"}
    list(victim.pretrain(bench.context("pretrain", changes, seed=3)))
    assert same(started[0].state(), build_clip(RANDOM, 3, torch.device("cpu")).state())
    assert started[0].precision == "float32", "as the model's settings say"


def test_data_without_clean_pairs_cannot_pretrain(bench, monkeypatch):
    context = bench.context("pretrain")
    monkeypatch.setattr(bench.workspace, "data", replace(context.data, pretrain=None))
    with pytest.raises(StageFault, match="no `pretrain` pairs; give them, or a model with"):
        list(victim.pretrain(context))


def test_a_clean_model_is_loaded_from_its_file(bench, given):
    path, state = given
    assert same(bench.output("load", {"victim.model.checkpoint": str(path)}).model, state)


def test_a_clean_model_may_be_random(bench):
    assert same(
        bench.output("load", {"victim.model.random_weights": True}).model,
        build_clip(RANDOM, 0, torch.device("cpu")).state(),
    )


def test_a_clean_model_that_does_not_fit_is_a_user_error(bench, tmp_path):
    path = tmp_path / "other.pt"
    torch.save({"a": torch.zeros(2)}, path)
    with pytest.raises(UserError, match=r"other\.pt: cannot be loaded"):
        bench.output("load", {"victim.model.checkpoint": str(path)})


def test_implanting_fine_tunes_the_clean_model_on_the_poisoned_pairs(bench):
    context = bench.context("implant", {"victim.implant.epochs": 2})
    epochs = list(victim.implant(context))
    assert [epoch.number for epoch in epochs] == [1, 2]
    output = epochs[-1].snapshot()
    assert output.base is None, "stored whole: everything later is a difference from it"
    assert not same(output.model, dict(context.artifact("clean").weights))
    rates = context.evaluator.rates(bench.clip(output.model), "val", by_class=True)
    assert output.facts["val"] == rates.as_json()
    assert set(output.facts) == {"val", "test"}


def test_a_model_that_is_already_poisoned_is_taken_as_it_is(bench, given):
    path, state = given
    changes = {"victim.implant.checkpoint": str(path)}
    output = bench.output("implant", changes)
    assert same(output.model, state)
    assert set(output.facts) == {"val", "test"}


def test_the_pairs_of_a_model_that_is_already_poisoned_are_taken_as_they_are(bench, given):
    context = bench.context("suspect", {"victim.implant.checkpoint": str(given[0])})
    poison = bench.output("poison", {"victim.implant.checkpoint": str(given[0])})
    assert len(poison.tensors["indices"]) == 0
    assert poison.facts["attack"]["kind"] == "badnets", "the trigger is still needed to evaluate models"
    manifest = PoisonManifest(poison.tensors["indices"].numpy(), [], BadNets())
    output = bench.output("suspect", {"victim.implant.checkpoint": str(given[0])})
    assert set(diagnose_suspect(context, output, manifest)) == {"pairs"}, "nobody knows what is poisoned"


def test_the_defended_model_is_evaluated_on_both_splits(bench):
    context = bench.context("evaluate")
    output = bench.output("evaluate")
    clip = bench.clip(context.artifact("model").weights)
    for split in ("val", "test"):
        assert output.facts[split] == context.evaluator.rates(clip, split, by_class=True).as_json()
    undefended = bench.inputs("evaluate", {"defense": {"kind": "none"}})
    assert undefended["model"].manifest.stage == "implant"
