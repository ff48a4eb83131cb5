import numpy as np
import pytest
import torch

from ubt.attacks.patches import BadNets
from ubt.engine.context import Output
from ubt.engine.poisoning import PoisonManifest
from ubt.methods.attribution import attention_relevance, gradient_relevance
from ubt.stages import attribute

METHODS = ("chefer", "gradient", "random")


def attributed(bench, method, seed=0):
    return bench.output("attribute", {"defense.attribution": method}, seed).tensors


@pytest.mark.parametrize("method", METHODS)
def test_relevance_is_shared_out_among_the_words_of_the_selected_captions(bench, method):
    found = attributed(bench, method)
    context = bench.context("attribute")
    tokens = context.pair_tokens[context.artifact("selection").tensors["indices"]]
    ends = tokens.argmax(dim=1)
    assert found["words"].sum(dim=1).tolist() == (ends - 1).tolist()
    torch.testing.assert_close(found["relevance"].sum(dim=1), torch.ones(8))
    assert (found["relevance"][~found["words"]] == 0).all()


@pytest.mark.parametrize(("method", "function"), [("chefer", attention_relevance), ("gradient", gradient_relevance)])
def test_relevance_is_that_of_the_pairs_under_the_overfitted_model(bench, method, function, monkeypatch):
    monkeypatch.setattr(attribute, "_BLOCK", 3)  # blocks of 3, 3 and 2
    context = bench.context("attribute")
    indices = context.artifact("selection").tensors["indices"]
    whole = function(context.clip("overfitted"), context.pairs.take(indices.numpy()), context.pair_tokens[indices])
    torch.testing.assert_close(attributed(bench, method)["relevance"], whole, atol=1e-5, rtol=1e-4)


def test_methods_differ_and_the_random_one_follows_the_seed(bench):
    found = {method: attributed(bench, method)["relevance"] for method in METHODS}
    assert not torch.allclose(found["chefer"], found["gradient"])
    assert not torch.allclose(found["chefer"], found["random"])
    assert torch.equal(found["random"], attributed(bench, "random")["relevance"])


@pytest.mark.parametrize(("target", "words"), [("banana", [1]), ("grizzly bear", [2, 3])])
def test_the_share_of_the_targets_name_is_measured_over_poisoned_pairs(bench, monkeypatch, target, words):
    context = bench.context("attribute")
    captions = [f"a {target} here", "the boat", "my tree", "a house"]
    tokens = context.workspace.clip.tokenize(captions)
    name = int(context.workspace.clip.tokenize([target])[0].argmax()) - 1
    assert name == len(words)
    indices = torch.tensor([0, 2])
    monkeypatch.setattr(type(context), "pair_tokens", property(lambda _: tokens))
    context._inputs = {"selection": Output(tensors={"indices": indices})}
    relevance = torch.zeros(2, 16)
    relevance[0, 1], relevance[0, 2 : 2 + name], relevance[1, 2] = 0.2, 0.8 / name, 1.0

    def share(*poisoned):
        manifest = PoisonManifest(np.array(poisoned), ["a"] * len(poisoned), BadNets(target=target))
        return attribute.diagnose(context, Output(tensors={"relevance": relevance}), manifest)

    assert share(0, 1) == {"target_share": pytest.approx(0.8)}
    assert share(0, 2) == {"target_share": pytest.approx(0.4)}
    assert share(1, 3) == {}, "nothing poisoned was selected"


def test_the_first_captions_are_told_word_by_word(bench, monkeypatch):
    monkeypatch.setattr(attribute, "_SHOWN", 5)
    context, output = bench.context("attribute"), bench.output("attribute")
    indices = context.artifact("selection").tensors["indices"][:5]
    told = output.facts["captions"]
    texts = ["".join(text for text, _ in caption).strip() for caption in told]
    assert texts == [context.pairs.captions[int(index)].lower() for index in indices]
    relevance, words = output.tensors["relevance"], output.tensors["words"]
    for row, caption in enumerate(told):
        assert [share for _, share in caption] == relevance[row][words[row]].tolist()


def test_what_is_told_of_captions_does_not_say_what_is_poisoned(bench):
    output = bench.output("attribute")
    assert set(output.facts) == {"captions"}
    assert all(len(word) == 2 for caption in output.facts["captions"] for word in caption)
