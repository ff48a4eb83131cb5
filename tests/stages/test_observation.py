"""What a defender sees of a model without the trigger."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_victim import run_trial

from ubt.models.clip import embed_pair_images, embed_tokens
from ubt.stages.observation import HELD, LOOKED_AT, of_ascent, of_unlearning

ABL = {
    "defense": {
        "kind": "abl",
        "isolate_epochs": 1,
        "isolate_batch_size": 100,
        "ascend_epochs": 2,
        "ascend_batch_size": 32,
    }
}
SEEN = {"held_similarity", "alike", "alike_selected"}


def looked_at(context, stage):
    return (of_unlearning if stage == "unlearn" else of_ascent)(context)


STAGE = pytest.mark.parametrize(("stage", "changes"), [("unlearn", {}), ("ascend", ABL)])


@STAGE
def test_it_is_recorded_after_each_epoch_beside_what_the_poisoned_model_has(bench, stage, changes):
    record = run_trial(bench.workspace.store.root, changes)[-1]
    assert record.state == "DONE", record.reason
    (done,) = (one for one in record.stages if one.stage == stage)
    for epoch in done.epochs:
        seen = SEEN | ({"alike_suspected"} if stage == "unlearn" else set())
        assert set(epoch.observed) == seen | {f"{name}_before" for name in seen}
    assert record.observed == done.epochs[-1].observed
    assert record.candidate.seen is not None


@STAGE
def test_similarities_are_those_of_a_loop_over_pairs(bench, stage, changes):
    context = bench.context(stage, changes)
    whole, clip = looked_at(context, stage), context.clip("poisoned")
    few = replace(whole, selected=whole.selected[:4], suspected=whole.suspected[:3], held=whole.held[:21])
    observe = replace(few, before=few.see(clip))

    def image(pair):
        return embed_pair_images(clip, context.pairs, np.array([pair]))[0]

    def caption(pair):
        return embed_tokens(clip, context.pair_tokens[torch.tensor([pair])])[0]

    def nearness(pair):
        return np.mean([float(image(pair) @ caption(other)) for other in observe.selected])

    bar = sorted(map(nearness, observe.held))[19]  # of 21, 95 % lie below the twentieth
    shares = {
        f"alike_{name}": np.mean([nearness(pair) > bar + 1e-6 for pair in pairs])
        for name, pairs in (("selected", observe.selected), ("suspected", observe.suspected))
        if len(pairs)
    }
    held = np.mean([float(image(pair) @ caption(pair)) for pair in observe.held])
    expected = {**shares, "alike": max(shares.values()), "held_similarity": held}
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
    assert len(observe.selected) <= LOOKED_AT
    assert set(observe.suspected) == suspects - set(observe.selected)
    other = of_unlearning(bench.context("unlearn", {**changes, "defense.unlearn_learning_rate": 1e-3}))
    assert np.array_equal(observe.held, other.held)


def test_looking_changes_no_bit_of_what_is_learnt(bench):
    seen = bench.artifact("unlearn", {"defense.unlearn_batch_size": 3}).weights
    unseen = bench.output("unlearn", {"defense.unlearn_batch_size": 3})
    assert all(torch.equal(value, unseen.model[name]) for name, value in seen.items())
