"""Anti-backdoor learning: rank, isolate, ascend."""

import numpy as np
import pytest
import torch
from tiny_victim import run_trial
from torch.nn import functional

from ubt.attacks.patches import BadNets
from ubt.engine.context import Output, StageInput
from ubt.engine.poisoning import PoisonManifest
from ubt.methods.losses import clip_loss, pair_losses
from ubt.stages import abl

ABL = {"kind": "abl", "isolate_batch_size": 40, "isolation_ratio": 0.1, "ascend_epochs": 2, "ascend_batch_size": 16}


def settings(**values):
    return {"defense": {**ABL, **values}}


# Losses pair by pair


def unit(count, dimension, seed):
    return functional.normalize(torch.randn(count, dimension, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_the_mean_of_the_pairs_losses_is_clips_loss():
    images, texts, scale = unit(7, 5, 0), unit(7, 5, 1), torch.tensor(4.0)
    assert float(pair_losses(images, texts, scale).mean()) == pytest.approx(float(clip_loss(images, texts, scale)))


def test_a_pairs_loss_is_the_mean_of_two_cross_entropies():
    images, texts = unit(3, 5, 0), unit(3, 5, 1)
    logits = (4 * images @ texts.T).double().numpy()
    expected = [
        (np.log(np.exp(logits[row]).sum()) + np.log(np.exp(logits[:, row]).sum())) / 2 - logits[row, row]
        for row in range(3)
    ]
    assert pair_losses(images, texts, torch.tensor(4.0)).tolist() == pytest.approx(expected, rel=1e-5)


# Rank


@pytest.mark.parametrize("start", ["clean", "poisoned"])
def test_without_training_pairs_are_ranked_under_the_model_that_it_would_start_from(bench, start):
    changes = settings(isolate_from=start, isolate_epochs=0)
    context, output = bench.context("rank", changes), bench.output("rank", changes)
    clip = context.clip(start)
    with torch.no_grad():
        images = clip.encode_images(context.pairs.take(np.arange(200)))
        cosines = (images * clip.encode_tokens(context.pair_tokens[:])).sum(dim=1)
    assert torch.allclose(output.tensors["similarities"], cosines, atol=1e-5)
    assert torch.equal(output.tensors["similarities"], output.tensors["similarities_before"])
    assert output.base == start


def test_every_pairs_loss_is_taken_once_within_a_random_batch(bench):
    changes = settings(isolate_epochs=0)
    context, output = bench.context("rank", changes), bench.output("rank", changes)
    clip = context.clip("clean")
    for batch in np.array_split(context.rng("judge").permutation(200), 5):
        with torch.no_grad():
            images, texts = (
                clip.encode_images(context.pairs.take(batch)),
                clip.encode_tokens(context.pair_tokens[batch]),
            )
            expected = pair_losses(images, texts, clip.logit_scale)
        assert torch.allclose(output.tensors["losses"][batch], expected, atol=1e-4)


def test_training_lowers_the_losses_of_all_pairs(bench):
    before, after = (bench.output("rank", settings(isolate_epochs=epochs)).tensors for epochs in (0, 4))
    assert float(after["losses"].mean()) < float(before["losses"].mean()) - 0.1
    assert torch.equal(after["similarities_before"], before["similarities"])


def test_how_well_pairs_are_separated_is_measured_three_ways(bench):
    tensors = {
        "losses": torch.tensor([1.0, 2.0, 3.0, 4.0]),
        "similarities": torch.tensor([0.5, 0.2, 0.4, 0.9]),
        "similarities_before": torch.tensor([0.4, 0.0, 0.4, 0.9]),
    }
    manifest = PoisonManifest(np.array([0, 1]), ["a", "a"], BadNets())
    found = abl.diagnose_rank(bench.context("rank", settings()), Output(tensors=tensors), manifest)
    assert found == {"auroc_loss": 1.0, "auroc_similarity": 0.25, "auroc_gain": 1.0}


# Isolate


def isolated(bench, **values):
    ranking = {
        "losses": torch.tensor([4.0, 1.0, 2.0, 3.0]),
        "similarities": torch.tensor([0.9, 0.5, 0.8, 0.1]),
        "similarities_before": torch.tensor([0.9, 0.2, 0.2, 0.0]),
    }
    given = {"ranking": StageInput(ranking)}
    return abl.isolate(bench.context("isolate", settings(isolation_ratio=0.5, **values), given=given)).tensors


@pytest.mark.parametrize(("by", "expected"), [("loss", [1, 2]), ("similarity", [0, 2]), ("gain", [2, 1])])
def test_pairs_of_lowest_loss_highest_similarity_or_largest_gain_are_isolated(bench, by, expected):
    found = isolated(bench, isolate_by=by)
    assert found["indices"].tolist() == expected
    assert found["similarities"].tolist() == pytest.approx([0.9, 0.5, 0.8, 0.1])


def test_recall_and_precision_are_measured(bench):
    context = bench.context("isolate", settings())
    output = Output(tensors={"indices": torch.tensor([3, 5, 8, 9])})
    known = PoisonManifest(np.array([3, 4, 5]), ["a"] * 3, BadNets())
    assert abl.diagnose_isolate(context, output, known) == {
        "pairs": 4.0,
        "recall": pytest.approx(2 / 3),
        "precision": pytest.approx(0.5),
    }
    unknown = PoisonManifest(np.array([], dtype=np.int64), [], BadNets())
    assert abl.diagnose_isolate(context, output, unknown) == {"pairs": 4.0}


# Ascend


def similarity_of_isolated(bench, context, model):
    indices = context.artifact("isolated").tensors["indices"]
    clip = bench.clip(model)
    with torch.no_grad():
        images = clip.encode_images(context.pairs.take(indices.numpy()))
        return float((images * clip.encode_tokens(context.pair_tokens[indices])).sum(dim=1).mean())


def test_ascending_drives_isolated_images_and_captions_apart(bench):
    changes = settings(ascend_epochs=4, ascend_learning_rate=1e-3, ascend_weight=1.0)
    context = bench.context("ascend", changes)
    before = similarity_of_isolated(bench, context, context.artifact("poisoned").weights)
    assert similarity_of_isolated(bench, context, bench.output("ascend", changes).model) < before - 0.1


def test_without_weight_the_isolated_pairs_are_only_left_out(bench):
    changes = settings(ascend_epochs=1, ascend_weight=0.0)
    first = next(abl.ascend(bench.context("ascend", changes)))
    up = next(abl.ascend(bench.context("ascend", settings(ascend_epochs=1, ascend_weight=5.0))))
    assert first.loss > 0
    assert up.loss < first.loss - 5


def test_an_epoch_passes_over_the_isolated_pairs_with_as_many_batches_of_others(bench, monkeypatch):
    context = bench.context("ascend", settings(ascend_epochs=2, ascend_isolated_batch_size=5))
    chosen = context.artifact("isolated").tensors["indices"].tolist()
    seen = []
    take = type(context.pairs).take
    monkeypatch.setattr(
        type(context.pairs), "take", lambda self, batch: seen.append(batch.tolist()) or take(self, batch)
    )
    list(abl.ascend(context))
    assert [len(batch) for batch in seen] == [21] * 8
    assert sorted(index for batch in seen[:4] for index in batch[:5]) == sorted(chosen)
    assert not {index for batch in seen for index in batch[5:]} & set(chosen)


def test_diagnostics_say_that_no_clean_pairs_were_used(bench):
    context = bench.context("ascend", settings())
    assert abl.diagnose_ascend(context, Output(), None) == {"pairs": 20.0, "clean_pairs": 0.0}


def test_a_trial_of_the_defense_runs_to_its_end(tiny_run, tmp_path):
    record = run_trial(tiny_run.copy(tmp_path), settings())[-1]
    assert record.state == "DONE", record.reason
    own = {found.stage: found for found in record.stages}
    assert own["isolate"].diagnostics["pairs"] == 20
    assert own["ascend"].epochs[-1].val == record.val.model_copy(update={"per_class": None})
