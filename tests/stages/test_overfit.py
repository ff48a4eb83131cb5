import math

import numpy as np
import pytest
import torch

from ubt.attacks.patches import BadNets
from ubt.engine.context import Output, StageInput
from ubt.engine.poisoning import PoisonManifest
from ubt.methods.losses import clip_loss
from ubt.models.clip import pair_similarities
from ubt.stages import overfit

MORE = {"defense.overfit_epochs": 4, "defense.overfit_learning_rate": 1e-3}


def mean_similarity(bench, context, model, indices):
    return float(pair_similarities(bench.clip(model), context.pairs, context.pair_tokens, np.array(indices)).mean())


def suspects_and_others(context):
    suspects = context.artifact("suspects").tensors["indices"].numpy()
    return suspects, np.setdiff1d(np.arange(len(context.pairs)), suspects)


def test_overfitting_makes_the_suspects_more_alike(bench):
    context = bench.context("overfit", MORE)
    suspects, _ = suspects_and_others(context)
    before = mean_similarity(bench, context, context.artifact("poisoned").weights, suspects)
    assert mean_similarity(bench, context, bench.output("overfit", MORE).model, suspects) > before + 0.1


def test_the_similarities_are_the_suspects_under_the_overfitted_model(bench):
    context, output = bench.context("overfit"), bench.output("overfit")
    suspects, _ = suspects_and_others(context)
    clip = bench.clip(output.model)
    expected = pair_similarities(clip, context.pairs, context.pair_tokens, suspects)
    assert torch.equal(output.tensors["similarities"], expected)


def test_the_suspects_similarities_before_are_those_under_the_poisoned_model(bench):
    context = bench.context("overfit")
    suspects, _ = suspects_and_others(context)
    expected = pair_similarities(context.clip("poisoned"), context.pairs, context.pair_tokens, suspects)
    assert torch.equal(bench.output("overfit").tensors["similarities_before"], expected)
    unchanged = bench.output("overfit", {"defense.overfit_epochs": 0}).tensors
    assert torch.equal(unchanged["similarities"], unchanged["similarities_before"])


def test_similarities_of_all_pairs_are_kept_where_all_are_overfitted(bench):
    changes = {"defense.overfit_data": "all"}
    context, output = bench.context("overfit", changes), bench.output("overfit", changes)
    clip = bench.clip(output.model)
    expected = pair_similarities(clip, context.pairs, context.pair_tokens, np.arange(200))
    assert torch.equal(output.tensors["all_similarities"], expected)
    assert "all_similarities" not in bench.output("overfit").tensors


@pytest.mark.parametrize("data", ["suspicious", "all"])
def test_the_pairs_that_are_overfitted_are_the_suspects_or_all(bench, monkeypatch, data):
    context = bench.context("overfit", {"defense.overfit_data": data})
    seen = []
    take = type(context.pairs).take
    monkeypatch.setattr(type(context.pairs), "take", lambda self, indices: seen.extend(indices) or take(self, indices))
    list(overfit.run(context))
    suspects, others = suspects_and_others(context)
    assert set(seen) <= set(suspects) if data == "suspicious" else set(seen) & set(others)


def test_pairs_are_seen_once_an_epoch_and_in_another_order_each_time(bench, monkeypatch):
    context = bench.context("overfit", {"defense.overfit_epochs": 2, "defense.overfit_batch_size": 5})
    seen = []
    take = type(context.pairs).take
    monkeypatch.setattr(type(context.pairs), "take", lambda self, indices: seen.extend(indices) or take(self, indices))
    list(overfit.run(context))
    suspects, _ = suspects_and_others(context)
    assert seen[:20] == list(suspects), "for their similarities before"
    first, second = seen[20:40], seen[40:]
    assert sorted(first) == sorted(second) == sorted(suspects)
    assert first != second


@pytest.mark.parametrize("loss", ["similarity", "contrastive"])
def test_the_loss_is_minus_the_mean_cosine_or_clips(bench, loss):
    context = bench.context("overfit", {"defense.overfit_loss": loss, "defense.overfit_batch_size": 20})
    clip = context.clip("poisoned")
    suspects, _ = suspects_and_others(context)
    with torch.no_grad():
        images = clip.encode_images(context.pairs.take(suspects))
        texts = clip.encode_tokens(context.pair_tokens[suspects])
        cosines = [float(image @ text) for image, text in zip(images, texts, strict=True)]
        expected = -sum(cosines) / 20 if loss == "similarity" else float(clip_loss(images, texts, clip.logit_scale))
    first = next(overfit.run(context))
    assert first.loss == pytest.approx(expected, rel=1e-3, abs=1e-5), "one batch of all suspects, before its step"


def test_statistics_of_batch_norm_and_the_token_embedding_stay_as_they_were(bench):
    poisoned = bench.context("overfit").artifact("poisoned").weights
    model = bench.output("overfit", MORE).model
    still = [n for n in model if "running_" in n or "num_batches" in n or n.endswith("token_embedding.weight")]
    assert len(still) > 10
    assert all(torch.equal(model[name], poisoned[name]) for name in still)
    assert not torch.equal(model["visual.layer1.0.conv1.weight"], poisoned["visual.layer1.0.conv1.weight"])


def test_the_poisoned_model_itself_is_left_alone(bench):
    context = bench.context("overfit")
    before = {name: value.clone() for name, value in context.artifact("poisoned").weights.items()}
    list(overfit.run(context))
    assert all(torch.equal(value, before[name]) for name, value in context.artifact("poisoned").weights.items())


@pytest.mark.parametrize(
    ("similarities", "poisoned", "expected"),
    [
        ([0.9, 0.1, 0.8, 0.2], (3, 5), {"auroc": 1.0, "similarity_poison": 0.85, "similarity_clean": 0.15}),
        ([0.1, 0.9, 0.2, 0.8], (3, 5), {"auroc": 0.0, "similarity_poison": 0.15, "similarity_clean": 0.85}),
        ([0.1, 0.9, 0.2, 0.8], (3, 4, 5, 6), {"similarity_poison": 0.5}),
        ([0.1, 0.9, 0.2, 0.8], (99,), {"similarity_clean": 0.5}),
    ],
)
def test_the_separation_of_poison_is_measured_where_there_is_poison_and_other_pairs(
    bench, similarities, poisoned, expected
):
    context = bench.context("overfit", given={"suspects": StageInput({"indices": torch.tensor([3, 4, 5, 6])})})
    before = torch.tensor([0.1, 0.1, 0.1, 0.1])
    output = Output(tensors={"similarities": torch.tensor(similarities), "similarities_before": before})
    manifest = PoisonManifest(np.array(poisoned), ["a"] * len(poisoned), BadNets())
    found = overfit.diagnose(context, output, manifest)
    found = {name: value for name, value in found.items() if not math.isnan(value)}
    ties = {"auroc_before": 0.5} if "auroc" in expected else {}
    assert found == pytest.approx({**expected, **ties})


def test_separation_is_measured_over_all_pairs_and_before_overfitting_too(bench):
    context = bench.context("overfit", given={"suspects": StageInput({"indices": torch.tensor([3, 4, 5, 6])})})
    tensors = {
        "similarities": torch.tensor([0.9, 0.1, 0.8, 0.2]),
        "similarities_before": torch.tensor([0.5, 0.1, 0.0, 0.2]),
        "all_similarities": torch.tensor([0.0, 1.0, 1.0, 0.9, 0.1, 0.8, 0.2]),
    }
    found = overfit.diagnose(context, Output(tensors=tensors), PoisonManifest(np.array([3, 5]), ["a"] * 2, BadNets()))
    assert (found["auroc"], found["auroc_before"], found["auroc_all"]) == (1, 2 / 4, 6 / 10)
