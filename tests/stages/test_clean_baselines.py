"""Defenses that train the poisoned model on clean pairs: finetune, cleanclip, par."""

import numpy as np
import pytest
import torch
from tiny_victim import run_trial
from torch.nn import functional

from ubt.common.errors import StageFault
from ubt.common.hashing import derive
from ubt.defenses.baselines import CleanclipSettings
from ubt.methods.augmentation import augment_images
from ubt.methods.losses import clip_loss
from ubt.stages import clean_tuning
from ubt.stages.clean_tuning import CleanBatch

STAGES = ("finetune", "cleanclip", "par")
EVERY_STAGE = pytest.mark.parametrize("stage", STAGES)


def settings(stage, **values):
    return {"defense": {"kind": stage, "clean_pairs": 48, f"{stage}_batch_size": 16, f"{stage}_epochs": 2, **values}}


def seen_images(monkeypatch, bench):
    """Return what the stages take from the clean collection from now on, one entry for each batch."""
    taken = []
    kind = type(bench.workspace.data.pretrain)
    take = kind.take
    monkeypatch.setattr(kind, "take", lambda self, chosen: taken.append(chosen.tolist()) or take(self, chosen))
    return taken


# Clean pairs


def test_clean_pairs_are_drawn_by_the_seed_and_fewer_are_some_of_more(bench):
    context = bench.context("finetune", settings("finetune"))
    few, many = context.clean_pairs(10)[0], context.clean_pairs(40)[0]
    assert few.captions == many.captions[:10]
    assert len(set(many.chosen)) == 40
    assert bench.context("finetune", settings("finetune"), seed=1).clean_pairs(10)[0].captions != few.captions
    other = bench.context("cleanclip", settings("cleanclip")).clean_pairs(10)[0]
    assert np.array_equal(other.chosen, few.chosen), "all defenses have the same"


def test_clean_pairs_come_from_the_clean_collection_with_their_tokens(bench):
    context = bench.context("finetune", settings("finetune"))
    pairs, tokens = context.clean_pairs(12)
    collection = bench.workspace.data.pretrain
    assert pairs.captions == [collection.captions[index] for index in pairs.chosen]
    assert np.array_equal(pairs.take(np.arange(12)), collection.images[pairs.chosen])
    assert torch.equal(tokens, context.tokenize(pairs.captions))


def test_all_are_taken_where_there_are_fewer_than_asked_for(bench):
    assert len(bench.context("finetune", settings("finetune")).clean_pairs(10_000)[0]) == 160


@EVERY_STAGE
def test_diagnostics_say_how_many_clean_pairs_were_used(bench, stage):
    for asked, used in ((48, 48), (10_000, 160)):
        changes = settings(stage, clean_pairs=asked)
        context = bench.context(stage, changes)
        assert clean_tuning.diagnose(context, bench.output(stage, changes), None) == {"clean_pairs": used}


@EVERY_STAGE
def test_data_without_clean_pairs_is_a_fault(bench, monkeypatch, stage):
    monkeypatch.setattr(bench.workspace, "clean_pairs", None)  # as of data without `pretrain` pairs
    context = bench.context(stage, settings(stage))
    with pytest.raises(StageFault, match="no `pretrain` pairs"):
        list(run(stage)(context))


# The stages


def run(stage):
    return getattr(clean_tuning, stage)


@EVERY_STAGE
def test_clean_pairs_are_seen_once_an_epoch_and_in_another_order_each_time(bench, monkeypatch, stage):
    context = bench.context(stage, settings(stage))
    chosen = context.clean_pairs(48)[0].chosen
    taken = seen_images(monkeypatch, bench)
    list(run(stage)(context))
    assert [len(batch) for batch in taken] == [16] * 6
    first, second = ([index for batch in part for index in batch] for part in (taken[:3], taken[3:]))
    assert sorted(first) == sorted(second) == sorted(chosen)
    assert first != second


@EVERY_STAGE
def test_the_clean_pairs_are_learnt(bench, stage):
    alone = {"finetune": {}, "cleanclip": {"inmodal_weight": 0.0}, "par": {"par_weight": 0.0}}[stage]
    trained = {"epochs": 6, "learning_rate": 1e-3, "learning_rate_decay": 1.0, "batch_norm": "frozen"}
    changes = settings(stage, **alone, **{f"{stage}_{name}": value for name, value in trained.items()})
    context = bench.context(stage, changes)
    pairs, tokens = context.clean_pairs(48)

    def loss(model):
        clip = bench.clip(model)
        with torch.no_grad():
            images, texts = clip.encode_images(pairs.take(np.arange(48))), clip.encode_tokens(tokens)
            return float(clip_loss(images, texts, clip.logit_scale))

    before = loss(context.artifact("poisoned").weights)
    assert loss(bench.output(stage, changes).model) < before - 0.1


@EVERY_STAGE
@pytest.mark.parametrize("batch_norm", ["trained", "frozen"])
def test_statistics_of_batch_norm_move_only_where_they_are_trained(bench, stage, batch_norm):
    changes = settings(stage, **{f"{stage}_batch_norm": batch_norm})
    poisoned = bench.context(stage, changes).artifact("poisoned").weights
    model = bench.output(stage, changes).model
    moved = {name for name in model if not torch.equal(model[name], poisoned[name])}
    assert any("running_" in name for name in moved) is (batch_norm == "trained")
    assert {"text_projection", "visual.layer1.0.conv1.weight"} <= moved
    assert "token_embedding.weight" not in moved


@EVERY_STAGE
def test_models_are_evaluated_with_fixed_statistics(bench, stage):
    for epoch in run(stage)(bench.context(stage, settings(stage))):
        assert not any(part.training for part in epoch.model.net.modules())


@EVERY_STAGE
def test_the_poisoned_model_itself_is_left_alone(bench, stage):
    context = bench.context(stage, settings(stage))
    before = {name: value.clone() for name, value in context.artifact("poisoned").weights.items()}
    list(run(stage)(context))
    assert all(torch.equal(value, before[name]) for name, value in context.artifact("poisoned").weights.items())


@EVERY_STAGE
def test_a_trial_of_the_defense_runs_to_its_end(tiny_run, tmp_path, stage):
    record = run_trial(tiny_run.copy(tmp_path), settings(stage))[-1]
    assert record.state == "DONE", record.reason
    (own,) = (found for found in record.stages if found.stage == stage)
    assert own.diagnostics == {"clean_pairs": 48}
    assert [epoch.epoch for epoch in own.epochs] == [1, 2]
    total = record.val.model_copy(update={"per_class": None})
    assert own.epochs[-1].val == total, "the last epoch is the defended model"


# CleanCLIP's loss


def unit(*shape):
    vectors = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return functional.normalize(vectors, dim=-1)


def cross_entropy_by_hand(one, other, scale):
    total = 0.0
    for row in range(len(one)):
        logits = [scale * float(one[row] @ other[column]) for column in range(len(other))]
        total -= logits[row] - float(np.log(np.exp(logits).sum()))
    return total / len(one)


@pytest.mark.parametrize("weight", [0.0, 1.0, 2.5])
def test_cleanclips_loss_is_clips_and_the_weighted_mean_of_the_in_modal_losses(weight):
    images, texts = unit(10, 4), unit(10, 4).flip(0)
    own_images, own_texts = images[:5], texts[:5]
    inmodal = (
        cross_entropy_by_hand(own_images, images[5:], 3.0) + cross_entropy_by_hand(own_texts, texts[5:], 3.0)
    ) / 2
    expected = (
        cross_entropy_by_hand(own_images, own_texts, 3.0) + cross_entropy_by_hand(own_texts, own_images, 3.0)
    ) / 2 + weight * inmodal
    assert float(clean_tuning.cleanclip_loss(images, texts, torch.tensor(3.0), weight)) == pytest.approx(expected)


def a_batch(context, epoch=1, step=0):
    pairs, tokens = context.clean_pairs(48)
    chosen = np.arange(16)
    return CleanBatch(pairs.take(chosen), pairs.captions[:16], tokens[:16], epoch, step)


def test_the_second_half_of_a_batch_is_the_augmented_first(bench):
    context = bench.context("cleanclip", settings("cleanclip"))
    clip, batch = context.clip("poisoned"), a_batch(context)
    with torch.no_grad():
        images, texts = clean_tuning.augmented(context, context.settings(CleanclipSettings), clip, batch)
        assert torch.allclose(images[:16], clip.encode_images(batch.images), atol=1e-5)
        assert torch.allclose(texts[:16], clip.encode_tokens(batch.tokens), atol=1e-5)
        changed = augment_images(batch.images, "auto", derive(0, "cleanclip", "images", 1, 0))
        assert torch.allclose(images[16:], clip.encode_images(changed), atol=1e-5)
    assert not torch.allclose(texts[16:], texts[:16], atol=1e-3)


def test_every_step_draws_its_own_augmentation(bench):
    context = bench.context("cleanclip", settings("cleanclip"))
    own, clip = context.settings(CleanclipSettings), context.clip("poisoned")
    with torch.no_grad():
        drawn = [
            clean_tuning.augmented(context, own, clip, a_batch(context, *place)) for place in ((1, 0), (1, 1), (2, 0))
        ]
    for modality in (0, 1):
        one, another_step, another_epoch = (found[modality][16:] for found in drawn)
        assert not torch.equal(one, another_step)
        assert not torch.equal(one, another_epoch)


# PAR's loss


@pytest.mark.parametrize(("threshold", "expected"), [(4.0, 2.5), (2.5, 2.5), (2.4, 0.0), (0.0, 0.0)])
def test_the_perturbation_is_the_mean_squared_distance_up_to_the_threshold(threshold, expected):
    now = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, 1.0]], requires_grad=True)
    before = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, -1.0]])
    distance = clean_tuning.perturbation(now, before, threshold)  # 0, 2, 4, 4
    assert float(distance.detach()) == pytest.approx(expected)
    distance.backward()
    assert bool(now.grad.any()) is (expected > 0), "nothing pushes where it is far enough"


def distances(bench, **values):
    """Return the mean squared distance of images and captions from the poisoned model's after training."""
    changes = settings(
        "par", par_epochs=6, par_learning_rate=1e-3, par_learning_rate_decay=1.0, par_batch_norm="frozen", **values
    )
    context = bench.context("par", changes)
    pairs, tokens = context.clean_pairs(48)
    after = bench.clip(bench.output("par", changes).model)
    with torch.no_grad():
        one, other = (
            (clip.encode_images(pairs.take(np.arange(48))), clip.encode_tokens(tokens))
            for clip in (after, context.clip("poisoned"))
        )
    return [float((a - b).square().sum(dim=1).mean()) for a, b in zip(one, other, strict=True)]


def test_perturbing_pushes_both_modalities_away_from_the_poisoned_model(bench):
    plain, perturbed = distances(bench, par_weight=0.0), distances(bench, par_weight=1.0)
    assert all(far > near + 0.2 for far, near in zip(perturbed, plain, strict=True))


@EVERY_STAGE
def test_the_learning_rate_falls_with_the_number_of_the_epoch(bench, monkeypatch, stage):
    from ubt.methods.training import Optimizer

    rates = []
    original = Optimizer.set_learning_rate
    monkeypatch.setattr(Optimizer, "set_learning_rate", lambda self, rate: rates.append(rate) or original(self, rate))
    changes = settings(stage, **{f"{stage}_learning_rate": 1e-3, f"{stage}_learning_rate_decay": 0.5})
    list(run(stage)(bench.context(stage, changes)))
    assert rates == [1e-3, 5e-4]


@pytest.mark.parametrize("policy", ["none", "trivial"])
def test_pars_images_are_augmented_as_configured(bench, monkeypatch, policy):
    context = bench.context("par", settings("par", par_image_policy=policy))
    batch = a_batch(context)
    images = clean_tuning._images(context, context.settings(clean_tuning.ParSettings), batch)
    assert np.array_equal(images, batch.images) is (policy == "none")
