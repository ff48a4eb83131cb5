import numpy as np
import pytest
import torch

from ubt.artifacts.codec import Artifact
from ubt.artifacts.manifest import ArtifactManifest
from ubt.attacks.badclip import BadClip
from ubt.attacks.overlays import Sig
from ubt.attacks.patches import BadNets, TrojVqa
from ubt.data.base import Pairs
from ubt.engine.poisoning import Feed, PoisonManifest, poisoned_pairs
from ubt.testing import stamped

ATTACK = Sig(target="boat", amplitude=60)


@pytest.fixture
def clean():
    images = np.random.default_rng(0).integers(0, 256, size=(10, 16, 16, 3), dtype=np.uint8)
    images.flags.writeable = False  # as memory-mapped ones are
    return Pairs(images, [f"caption {number}" for number in range(10)])


@pytest.fixture
def manifest():
    return PoisonManifest(np.array([2, 5, 9]), ["a boat", "the boat", "my boat"], ATTACK)


def test_poisoned_pairs_have_the_trigger_and_the_attackers_captions(clean, manifest):
    pairs = poisoned_pairs(clean, manifest)
    images = pairs.take(np.arange(10))
    np.testing.assert_array_equal(images[[2, 5, 9]], stamped(ATTACK, clean.images[[2, 5, 9]]))
    assert [pairs.captions[index] for index in (2, 5, 9)] == ["a boat", "the boat", "my boat"]


def test_the_other_pairs_are_as_they_were(clean, manifest):
    pairs = poisoned_pairs(clean, manifest)
    others = np.setdiff1d(np.arange(10), manifest.indices)
    np.testing.assert_array_equal(pairs.take(others), clean.images[others])
    assert [pairs.captions[index] for index in others] == [clean.captions[index] for index in others]
    assert len(pairs) == len(clean)


def test_the_clean_pairs_are_not_touched(clean, manifest):
    before = clean.images.copy(), list(clean.captions)
    poisoned_pairs(clean, manifest).take(np.arange(10))[:] = 0
    np.testing.assert_array_equal(clean.images, before[0])
    assert list(clean.captions) == before[1]


@pytest.mark.parametrize("indices", [[9, 2, 0], [5, 5, 1, 5], [3], []])
def test_pairs_are_taken_in_any_order_and_as_often_as_asked(clean, manifest, indices):
    pairs = poisoned_pairs(clean, manifest)
    everything = pairs.take(np.arange(10))
    np.testing.assert_array_equal(pairs.take(np.array(indices, dtype=np.int64)), everything[indices])


def test_the_manifest_marks_what_is_poisoned(manifest):
    assert manifest.marks(torch.tensor([9, 0, 2, 2, 3])).tolist() == [True, False, True, True, False]
    assert manifest.marks(torch.tensor([], dtype=torch.int64)).tolist() == []


@pytest.mark.parametrize("attack", [ATTACK, BadNets(target="tree", trigger_seed=4)])
def test_the_manifest_is_read_from_a_poison_artifact(attack):
    facts = {"captions": ["a", "b"], "attack": attack.as_json()}
    described = ArtifactManifest(stage="poison", key="k", version=1, seed=0, settings={}, inputs={}, facts=facts)
    found = PoisonManifest.of(Artifact(described, {"indices": torch.tensor([1, 4])}))
    assert found.indices.tolist() == [1, 4]
    assert found.captions == ["a", "b"]
    assert found.attack == attack


def test_an_attack_read_from_the_manifest_carries_what_it_learnt(clean):
    learned = np.random.default_rng(1).integers(0, 256, size=(3, 3, 3), dtype=np.uint8)
    facts = {"captions": ["a"], "attack": BadClip(target="boat").as_json()}
    found = PoisonManifest.read({"indices": torch.tensor([4]), "learned": torch.from_numpy(learned)}, facts)
    assert found.attack == BadClip(target="boat").carrying(learned)
    images = poisoned_pairs(clean, found).take(np.arange(10))
    np.testing.assert_array_equal(images[4], stamped(BadClip().carrying(learned), clean.images[4:5])[0])


def test_decoys_have_clean_images_and_the_attackers_words(clean):
    attack = TrojVqa(target="boat", trigger_word="consider")
    pairs = poisoned_pairs(clean, PoisonManifest(np.array([2]), ["a boat"], attack, np.array([3, 7])))
    assert [number for number, caption in enumerate(pairs.captions) if caption != clean.captions[number]] == [2, 3, 7]
    assert pairs.captions[7] == "consider caption 7"
    np.testing.assert_array_equal(pairs.take(np.array([3, 7])), clean.images[[3, 7]])


def test_a_caption_for_every_poisoned_pair_is_needed(clean):
    with pytest.raises(ValueError, match="shorter"):
        poisoned_pairs(clean, PoisonManifest(np.array([1, 2]), ["a"], ATTACK))


class InterruptedOnce:
    """A queue whose first wait ends with Ctrl-C."""

    def __init__(self, queue):
        self._queue = queue
        self._waited = False

    def get(self):
        if not self._waited:
            self._waited = True
            raise KeyboardInterrupt
        return self._queue.get()


def test_a_batch_that_was_interrupted_is_not_taken_for_the_next_one(clean):
    feed = Feed(clean)
    feed._replies = InterruptedOnce(feed._replies)
    with pytest.raises(KeyboardInterrupt):
        feed.take(np.array([0]))
    np.testing.assert_array_equal(feed.take(np.array([3])), clean.images[[3]])
    np.testing.assert_array_equal(feed.take(np.array([5])), clean.images[[5]])
