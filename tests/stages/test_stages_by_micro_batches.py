"""Every stage that trains can do so by parts of a batch: the same step, with less in memory at a time."""

import pytest
import torch

from ubt.models.clip import Clip


def tuned(kind):
    few = {"clean_pairs": 24, f"{kind}_batch_size": 12, f"{kind}_epochs": 1, f"{kind}_batch_norm": "frozen"}
    return {"defense": {"kind": kind, **few}}


ABL = {"kind": "abl", "isolate_batch_size": 50, "isolation_ratio": 0.05, "ascend_epochs": 1, "ascend_batch_size": 16}
STAGES = {
    "overfit": {"defense.overfit_epochs": 1, "defense.overfit_loss": "contrastive"},
    "unlearn": {"defense.unlearn_epochs": 1, "defense.unlearn_towers": "both"},
    "finetune": tuned("finetune"),
    "cleanclip": tuned("cleanclip"),
    "par": tuned("par"),
    "rank": {"defense": ABL},
    "ascend": {"defense": ABL},
}
SETTINGS = {stage: f"{'isolate' if stage == 'rank' else stage}_micro_batch_size" for stage in STAGES}


def apart(one, other):
    """Return the distance of two models' weights."""
    names = [name for name in one if one[name].is_floating_point()]
    return float(torch.cat([(one[name] - other[name]).flatten() for name in names]).norm())


@pytest.fixture
def at_once(monkeypatch):
    """Return how many images were embedded at a time where a gradient could come back, one after the other."""
    found, encode = [], Clip._encode_images

    def noted(self, images):
        if torch.is_grad_enabled():
            found.append(len(images))
        return encode(self, images)

    monkeypatch.setattr(Clip, "_encode_images", noted)
    return found


@pytest.mark.parametrize("stage", STAGES)
def test_a_step_by_micro_batches_is_the_step(bench, at_once, stage):
    whole = bench.output(stage, STAGES[stage]).model
    assert max(at_once) > 5
    at_once.clear()
    parts = bench.output(stage, {**STAGES[stage], f"defense.{SETTINGS[stage]}": 5}).model
    assert max(at_once) <= 5
    # Not weight by weight: of a gradient that is nothing but rounding, AdamW makes a step like any other.
    start = bench.artifact("implant").weights if stage != "rank" else bench.artifact("pretrain").weights
    assert apart(parts, whole) < 0.1 * apart(whole, start)


@pytest.mark.parametrize("stage", STAGES)
def test_the_size_of_micro_batches_is_part_of_the_key_where_it_is_given(bench, stage):
    given = {**STAGES[stage], f"defense.{SETTINGS[stage]}": 5}
    without = {**STAGES[stage], f"defense.{SETTINGS[stage]}": None}
    assert bench.node(stage, given).key != bench.node(stage, STAGES[stage]).key
    assert bench.node(stage, without).key == bench.node(stage, STAGES[stage]).key
