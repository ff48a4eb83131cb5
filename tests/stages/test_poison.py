import numpy as np
import pytest

from ubt.attacks.base import POISON_TEMPLATES
from ubt.errors import StageFault
from ubt.poisoning import Manifest, poisoned_pairs


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


def test_training_sees_the_pairs_that_the_manifest_describes(bench):
    context = bench.context("implant")
    manifest, clean = context.manifest, context.data.train
    expected = poisoned_pairs(clean, Manifest(manifest.indices, manifest.captions, manifest.attack))
    everything = np.arange(200)
    np.testing.assert_array_equal(context.pairs.take(everything), expected.take(everything))
    assert list(context.pairs.captions) == list(expected.captions)
    assert context.pair_tokens.tolist() == context.workspace.clip.tokenize(list(expected.captions)).tolist()
    np.testing.assert_array_equal(
        np.flatnonzero((context.pairs.take(everything) != clean.images).any(axis=(1, 2, 3))), manifest.indices
    )
