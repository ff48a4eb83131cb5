import numpy as np

from ubt.data.base import Pairs, subset
from ubt.engine.poisoning import PoisonedPairs


def some_pairs(count=6):
    images = np.arange(count * 12, dtype=np.uint8).reshape(count, 2, 2, 3)
    return Pairs(images, [f"caption {index}" for index in range(count)])


def test_chosen_pairs_keep_image_and_caption_together_in_the_order_of_choice():
    whole = some_pairs()
    part = subset(whole, np.array([4, 0, 5]))
    assert len(part) == 3
    assert part.captions == ["caption 4", "caption 0", "caption 5"]
    assert np.array_equal(part.take(np.array([2, 0])), whole.images[[5, 4]])


def test_images_are_taken_as_the_whole_hands_them_out():
    whole = some_pairs()
    triggered = np.full((1, 2, 2, 3), 255, dtype=np.uint8)
    poisoned = PoisonedPairs(whole, whole.captions, np.arange(6) == 2, lambda images, rows: triggered)
    assert np.array_equal(subset(poisoned, np.array([2, 3])).take(np.array([0])), triggered)


def test_a_subset_of_a_subset_counts_what_was_chosen():
    part = subset(subset(some_pairs(), np.array([4, 0, 5])), np.array([2, 1]))
    assert part.captions == ["caption 5", "caption 0"]
    assert np.array_equal(part.take(np.array([0, 1])), some_pairs().images[[5, 0]])
