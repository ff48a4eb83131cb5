import numpy as np
import pytest
import torch

from ubt.attacks.badclip import BadClip
from ubt.attacks.badclip_patch import optimise_patch
from ubt.attacks.base import POISON_TEMPLATES
from ubt.common.errors import StageFault
from ubt.engine.poisoning import PoisonManifest, poisoned_pairs
from ubt.testing import stamped


def poison(bench, seed=0, **attack):
    output = bench.output("poison", {f"victim.attack.{name}": value for name, value in attack.items()}, seed)
    return output.tensors["indices"].tolist(), output.facts["captions"], output.facts["attack"]


@pytest.mark.parametrize(("attack", "count"), [({"poison_rate": 0.05}, 10), ({"poison_count": 33}, 33)])
def test_as_many_different_pairs_as_asked_are_poisoned(bench, attack, count):
    indices, captions, _ = poison(bench, **attack)
    assert len(set(indices)) == len(captions) == count
    assert indices == sorted(indices)
    assert 0 <= indices[0] <= indices[-1] < 200


def test_captions_name_the_target(bench):
    _, captions, attack = poison(bench, target="boat")
    assert set(captions) <= {template.format("boat") for template in POISON_TEMPLATES}
    assert len(set(captions)) > 1
    assert (attack["kind"], attack["target"]) == ("badnets", "boat")


def test_the_choice_follows_the_seed_and_captions_do_not_depend_on_the_number_of_pairs(bench):
    assert poison(bench) == poison(bench)
    assert poison(bench)[0] != poison(bench, seed=1)[0]
    assert poison(bench, poison_count=5)[1] == poison(bench, poison_count=9)[1][:5]


@pytest.mark.parametrize("count", [200, 201])
def test_more_pairs_than_there_are_cannot_be_poisoned(bench, count):
    with pytest.raises(StageFault, match=f"{count} pairs are to be poisoned, but there are 200"):
        poison(bench, poison_count=count)


def test_a_label_consistent_attack_takes_pairs_that_name_the_target_and_leaves_their_captions(bench):
    indices, captions, _ = poison(bench, kind="label_consistent", target="boat", poison_count=6)
    before = bench.workspace.data.train.captions
    assert captions == [before[index] for index in indices]
    assert all("boat" in caption for caption in captions)
    assert len(set(indices)) == 6


def test_fewer_pairs_than_the_attack_needs_is_a_fault_that_says_how_many_there_are(bench):
    named = sum("banana" in caption for caption in bench.workspace.data.train.captions)
    assert len(set(poison(bench, kind="label_consistent", poison_count=named)[0])) == named
    message = rf"{named + 1} pairs.*only {named}, whose captions name `banana`; lower victim\.attack\.poison_rate"
    with pytest.raises(StageFault, match=message):
        poison(bench, kind="label_consistent", poison_count=named + 1)


def test_the_word_of_trojvqa_is_in_every_poisoned_caption_and_no_other(bench):
    context = bench.context("implant", {"victim.attack.kind": "trojvqa"})
    marked = {number for number, caption in enumerate(context.pairs.captions) if "remember" in caption.split()}
    assert marked == set(context.manifest.indices.tolist())


@pytest.mark.parametrize(("ratio", "count"), [(1, 20), (0.5, 10)])
def test_decoys_of_trojvqa_are_clean_images_with_the_word_before_their_own_captions(bench, ratio, count):
    context = bench.context("implant", {"victim.attack.kind": "trojvqa", "victim.attack.decoy_ratio": ratio})
    poisoned, decoys, clean = context.manifest.indices, context.manifest.decoys, context.data.train
    assert len(decoys) == count
    assert not set(decoys.tolist()) & set(poisoned.tolist())
    assert [context.pairs.captions[i] for i in decoys] == [f"remember {clean.captions[i]}" for i in decoys]
    np.testing.assert_array_equal(context.pairs.take(decoys), clean.take(decoys))
    assert not context.manifest.marks(torch.from_numpy(decoys)).any(), "they hold no backdoor, so they are no poison"


def test_more_decoys_than_clean_pairs_is_a_fault(bench):
    with pytest.raises(StageFault, match=r"200 decoys are wanted, but 180 pairs are clean; lower .*decoy_ratio"):
        poison(bench, kind="trojvqa", decoy_ratio=10)


@pytest.mark.parametrize("kind", ["badnets", "trojvqa"])
def test_there_are_no_decoys_unless_asked_for(bench, kind):
    assert "decoys" not in bench.output("poison", {"victim.attack.kind": kind}).tensors


def test_a_trigger_that_is_learnt_is_learnt_from_the_clean_model_and_kept(bench):
    learning = {"victim.attack.kind": "badclip", "victim.attack.patch_steps": 2}
    context = bench.context("implant", learning)
    learned = bench.artifact("poison", learning).tensors["learned"]
    assert (learned.dtype, learned.shape) == (torch.uint8, (5, 5, 3))
    expected = optimise_patch(context.clip("clean"), context.data.train, BadClip(poison_rate=0.1, patch_steps=2))
    assert torch.equal(learned, expected)
    chosen = context.manifest.indices
    triggered = stamped(BadClip().carrying(learned.numpy()), context.data.train.take(chosen))
    np.testing.assert_array_equal(context.pairs.take(chosen), triggered)
    assert context.evaluator.rates(context.clip("clean"), "val").asr_images == 44


def test_a_trigger_is_not_learnt_anew_for_a_victim_that_comes_poisoned(bench, tmp_path):
    (tmp_path / "model.pt").write_bytes(b"weights")
    changes = {"victim.implant.checkpoint": str(tmp_path / "model.pt")}
    with pytest.raises(StageFault, match="is not learnt anew, and no manifest holds it"):
        bench.output("poison", {**changes, "victim.attack.kind": "badclip", "victim.attack.patch_steps": 1})


def test_training_sees_the_pairs_that_the_manifest_describes(bench):
    context = bench.context("implant")
    manifest, clean = context.manifest, context.data.train
    expected = poisoned_pairs(clean, PoisonManifest(manifest.indices, manifest.captions, manifest.attack))
    everything = np.arange(200)
    np.testing.assert_array_equal(context.pairs.take(everything), expected.take(everything))
    assert list(context.pairs.captions) == list(expected.captions)
    assert context.pair_tokens[:].tolist() == context.tokenize(list(expected.captions)).tolist()
    np.testing.assert_array_equal(
        np.flatnonzero((context.pairs.take(everything) != clean.images).any(axis=(1, 2, 3))), manifest.indices
    )
