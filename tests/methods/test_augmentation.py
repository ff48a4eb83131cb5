from collections import Counter

import numpy as np
import pytest
import torch

from ubt.methods.augmentation import augment_captions, augment_images

IMAGES = np.random.default_rng(0).integers(0, 256, size=(24, 16, 16, 3), dtype=np.uint8)
EVERY_POLICY = pytest.mark.parametrize("policy", ["auto", "rand", "trivial"])


@EVERY_POLICY
def test_augmented_images_are_images_and_most_are_changed(policy):
    before = IMAGES.copy()
    changed = augment_images(IMAGES, policy, seed=3)
    assert (changed.shape, changed.dtype) == (IMAGES.shape, np.uint8)
    assert np.array_equal(IMAGES, before), "the originals are left alone"
    assert sum(not np.array_equal(one, other) for one, other in zip(changed, IMAGES, strict=True)) > 12


@EVERY_POLICY
def test_the_seed_alone_says_how_images_are_changed(policy):
    torch.manual_seed(1)
    one = augment_images(IMAGES, policy, seed=3)
    torch.manual_seed(2)
    assert np.array_equal(augment_images(IMAGES, policy, seed=3), one)
    assert not np.array_equal(augment_images(IMAGES, policy, seed=4), one)


@EVERY_POLICY
def test_the_global_generator_is_left_where_it_was(policy):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    augment_images(IMAGES, policy, seed=3)
    assert torch.equal(torch.rand(3), expected)


@EVERY_POLICY
def test_every_image_gets_its_own_draw(policy):
    alike = np.repeat(IMAGES[:1], 24, axis=0)
    assert len({image.tobytes() for image in augment_images(alike, policy, seed=0)}) > 6


CAPTION = "one two three four five six seven eight nine ten"


def many(rate, count=2000):
    return augment_captions([CAPTION] * count, rate, np.random.default_rng(0))


def test_captions_lose_words_or_have_them_swapped_and_gain_none():
    deleted = swapped = 0
    for caption in many(0.2):
        words = caption.split()
        if len(words) == 10:
            assert sorted(words) == sorted(CAPTION.split())
            swapped += words != CAPTION.split()
        else:
            assert words == [word for word in CAPTION.split() if word in words], "the order stays"
            deleted += 1
    assert deleted > 700
    assert swapped > 700


def test_words_are_deleted_at_the_given_rate():
    lengths = [len(caption.split()) for caption in many(0.3, 8000)]
    assert np.mean(lengths) == pytest.approx(10 - 0.5 * 0.3 * 10, abs=0.1), "half of the captions lose three of ten"


def test_as_many_swaps_as_the_rate_says_but_at_least_one():
    moved = Counter(
        sum(one != other for one, other in zip(caption.split(), CAPTION.split(), strict=True)) for caption in many(0.0)
    )
    assert set(moved) == {0, 2}, "one swap, or a deletion at rate 0"
    assert moved[2] == pytest.approx(1000, abs=100)
    assert max(len(set(caption.split()) - set(CAPTION.split())) for caption in many(0.4)) == 0


@pytest.mark.parametrize("caption", ["", "word"])
def test_a_caption_too_short_to_change_stays(caption):
    assert augment_captions([caption], 1.0, np.random.default_rng(0)) == [caption]


def test_one_word_always_stays():
    assert all(caption for caption in augment_captions(["two words"] * 200, 1.0, np.random.default_rng(0)))


def test_captions_are_changed_as_the_generator_draws():
    assert many(0.2, 50) == many(0.2, 50)
    assert many(0.2, 50) != augment_captions([CAPTION] * 50, 0.2, np.random.default_rng(1))
