"""BadCLIP's patch: its loss against the formula, and that learning makes it smaller."""

import numpy as np
import pytest
import torch

from ubt.attacks.badclip import BadClip
from ubt.attacks.badclip_patch import optimise_patch
from ubt.attacks.base import POISON_TEMPLATES
from ubt.common.errors import StageFault
from ubt.data.base import Pairs
from ubt.models.clip import embed_images, embed_tokens
from ubt.testing import stamped

FAST = {"target": "boat", "patch_steps": 3, "patch_batch_size": 8}


@pytest.fixture
def clean(bench):
    return bench.context("implant").clip("clean")


@pytest.fixture
def pairs(data):
    return Pairs(data.train.images[:120], data.train.captions[:120])


def split(pairs, target="boat"):
    named = np.array([target in caption.split() for caption in pairs.captions])
    return np.flatnonzero(named), np.flatnonzero(~named)


def mean_loss(clip, pairs, attack, patch):
    """Return the loss of the docstring over all images, one pair of embeddings after the other."""
    named, others = split(pairs)
    texts = embed_tokens(clip, clip.tokenize([template.format("boat") for template in POISON_TEMPLATES])).double()
    captions = embed_tokens(clip, clip.tokenize([pairs.captions[index] for index in others])).double()
    targets = embed_images(clip, pairs.images[named]).double()
    own = embed_images(clip, pairs.images[others]).double()
    patched = embed_images(clip, stamped(attack.carrying(patch.numpy()), pairs.images[others])).double()
    scale, losses = float(clip.logit_scale), []
    for row, image in enumerate(patched):
        wrong = torch.exp(scale * captions @ image).sum()
        for text in texts:
            right = torch.exp(scale * text @ image)
            losses.append(-torch.log(right / (right + wrong)) / len(texts))
        for target in targets:
            gap = (image - target).norm() - (image - own[row]).norm() + attack.margin
            losses.append(attack.image_weight * max(gap, torch.tensor(0.0)) / len(targets))
    return float(sum(losses) / len(patched))


def noise(side_px=5, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, size=(side_px, side_px, 3), dtype=np.uint8))


def test_the_learnt_patch_draws_images_to_the_target_better_than_noise(clean, pairs):
    attack = BadClip(target="boat", patch_steps=40, patch_batch_size=32, patch_learning_rate=0.05)
    learned = mean_loss(clean, pairs, attack, optimise_patch(clean, pairs, attack))
    assert learned < min(mean_loss(clean, pairs, attack, noise(seed=seed)) for seed in range(5))


@pytest.mark.parametrize("weights", [{}, {"margin": 0.2, "image_weight": 3.0}, {"image_weight": 0.0}])
def test_the_loss_is_that_of_the_formula(clean, pairs, monkeypatch, weights):
    # Every image in one batch, and one step from a known patch: the loss that is reported is the mean over all.
    named, others = split(pairs)
    few = Pairs(pairs.images[[*named[:1], *others[:6]]], [pairs.captions[i] for i in [*named[:1], *others[:6]]])
    attack, reported = BadClip(target="boat", patch_steps=1, **weights), []

    class Everything:
        """A generator that draws every image once."""

        def __init__(self, *_):
            self.generator = np.random.default_rng(0)

        def integers(self, high, size):
            return np.arange(6) % high

        def normal(self, *_, size):
            return noise().permute(2, 0, 1).numpy() / 255

        def choice(self, indices, size, replace):
            return indices

    monkeypatch.setattr("ubt.attacks.badclip_patch.numpy_generator", Everything)
    monkeypatch.setattr(torch.Tensor, "backward", lambda loss: reported.append(float(loss.detach())))
    unchanged = optimise_patch(clean, few, attack)
    assert torch.equal(unchanged, noise()), "without a gradient nothing is learnt"
    assert reported == [pytest.approx(mean_loss(clean, few, attack, unchanged), rel=1e-3)]


@pytest.mark.parametrize("size_fraction", [(0.16, 5), (0.25, 8)])
def test_the_patch_is_as_large_as_it_is_stamped(clean, pairs, size_fraction):
    fraction, side_px = size_fraction
    patch = optimise_patch(clean, pairs, BadClip(**FAST, patch_fraction=fraction))
    assert (patch.dtype, tuple(patch.shape)) == (torch.uint8, (side_px, side_px, 3))


def test_equal_settings_give_equal_bits_and_others_other_bits(bench, pairs):
    def learn(**changes):
        return optimise_patch(bench.context("implant").clip("clean"), pairs, BadClip(**{**FAST, **changes}))

    assert torch.equal(learn(), learn())
    changes = [
        {"trigger_seed": 1},
        {"patch_steps": 5},
        {"patch_learning_rate": 0.2},
        {"patch_batch_size": 9},
        {"image_weight": 5.0},
        {"target": "tree"},
    ]
    assert [change for change in changes if torch.equal(learn(**change), learn())] == []


def test_the_model_is_not_changed_by_learning(clean, pairs):
    before = clean.state()
    optimise_patch(clean, pairs, BadClip(**FAST))
    assert all(torch.equal(value, before[name]) for name, value in clean.state().items())


@pytest.mark.parametrize(("captions", "message"), [("a boat", "all of the 120"), ("a tree", "none of the 120")])
def test_without_images_to_learn_from_it_is_a_fault(clean, pairs, captions, message):
    with pytest.raises(StageFault, match=message):
        optimise_patch(clean, Pairs(pairs.images, [captions] * 120), BadClip(**FAST))


def test_no_images_of_the_target_are_needed_if_they_have_no_weight(clean, pairs):
    patch = optimise_patch(clean, Pairs(pairs.images, ["a tree"] * 120), BadClip(**FAST, image_weight=0))
    assert patch.shape == (5, 5, 3)
