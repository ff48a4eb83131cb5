"""What a defender sees of a model without the trigger."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_victim import run_trial

from ubt.models.clip import embed_pair_images, embed_tokens
from ubt.stages.observation import HELD, SELECTED, of_ascent, of_unlearning

ABL = {
    "defense": {
        "kind": "abl",
        "isolate_epochs": 1,
        "isolate_batch_size": 100,
        "ascend_epochs": 2,
        "ascend_batch_size": 32,
    }
}
SEEN = {"telling_similarity", "ordinary_similarity", "held_similarity", "alike"}


def looked_at(context, stage):
    return (of_unlearning if stage == "unlearn" else of_ascent)(context)


STAGE = pytest.mark.parametrize(("stage", "changes"), [("unlearn", {}), ("ascend", ABL)])


@STAGE
def test_it_is_recorded_after_each_epoch_beside_what_the_poisoned_model_has(bench, stage, changes):
    record = run_trial(bench.workspace.store.root, changes)[-1]
    assert record.state == "DONE", record.reason
    (done,) = (one for one in record.stages if one.stage == stage)
    for epoch in done.epochs:
        assert set(epoch.observed) == SEEN | {f"{name}_before" for name in SEEN}
    assert record.observed == done.epochs[-1].observed
    assert record.candidate.seen is not None


@STAGE
def test_similarities_are_those_of_a_loop_over_pairs(bench, stage, changes):
    context = bench.context(stage, changes)
    whole, clip = looked_at(context, stage), context.clip("poisoned")
    few = replace(whole, selected=whole.selected[:4], telling=whole.telling[:4], held=whole.held[:6])
    observe = replace(few, before=few.see(clip))

    def image(pair):
        return embed_pair_images(clip, context.pairs, np.array([pair]))[0]

    def similarity(pair, tokens):
        return float(image(pair) @ embed_tokens(clip, tokens[None])[0])

    drawn = [np.mean([similarity(pair, told) for told in observe.telling]) for pair in observe.selected]
    others = [np.mean([similarity(pair, told) for told in observe.telling]) for pair in observe.held]
    more_similar = [(one > other) + (one == other) / 2 for one in drawn for other in others]
    expected = {
        "telling_similarity": np.mean(drawn),
        "ordinary_similarity": np.mean(others),
        "held_similarity": np.mean([similarity(pair, context.pair_tokens[pair]) for pair in observe.held]),
        "alike": np.mean(more_similar),
    }
    found = observe(clip)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-5), name
        assert found[f"{name}_before"] == found[name], "the poisoned model is as it was before"


def test_held_pairs_are_neither_suspected_nor_trained_on_and_the_same_for_every_setting_behind(bench):
    changes = {"defense.retain_samples": 40}
    context = bench.context("unlearn", changes)
    observe = of_unlearning(context)
    suspects = set(context.artifact("suspects").tensors["indices"].tolist())
    assert set(observe.selected) <= suspects
    assert not set(observe.held) & suspects
    assert len(observe.held) == len(set(observe.held)) <= HELD
    assert len(observe.selected) <= SELECTED
    other = of_unlearning(bench.context("unlearn", {**changes, "defense.unlearn_learning_rate": 1e-3}))
    assert np.array_equal(observe.held, other.held)


def test_nothing_selected_is_nothing_to_look_at(bench):
    record = run_trial(bench.workspace.store.root, {"defense.token_threshold": 1.0})[-1]
    assert record.state == "DONE", record.reason
    assert set(record.observed) == {"held_similarity", "held_similarity_before"}
    assert record.candidate.seen is None


def test_looking_changes_no_bit_of_what_is_learnt(bench):
    seen = bench.artifact("unlearn", {"defense.unlearn_batch_size": 3}).weights
    unseen = bench.output("unlearn", {"defense.unlearn_batch_size": 3})
    assert all(torch.equal(value, unseen.model[name]) for name, value in seen.items())
