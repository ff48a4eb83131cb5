"""Batches: what is asked for, in memory of their own, also when others are asked for ahead."""

import gc

import numpy as np
import pytest

from ubt.data.base import Pairs, subset
from ubt.engine.poisoning import Feed
from ubt.methods.feeding import Buffers, fed, gathered


@pytest.fixture
def pairs():
    images = np.random.default_rng(0).integers(0, 256, size=(20, 6, 6, 3), dtype=np.uint8)
    images.flags.writeable = False
    return Pairs(images, [f"caption {number}" for number in range(20)])


def test_memory_is_used_again_when_nothing_refers_to_a_batch(pairs):
    buffers = Buffers()
    first = gathered(pairs, np.arange(5), buffers)
    place, view = first.ctypes.data, first[2:, 1:]
    del first
    gc.collect()
    second = gathered(pairs, np.arange(5, 10), buffers)
    assert second.ctypes.data != place, "a view of it is still there"
    np.testing.assert_array_equal(view, pairs.images[2:5, 1:])
    del view
    gc.collect()
    third = gathered(pairs, np.arange(3), buffers)
    assert third.ctypes.data == place
    np.testing.assert_array_equal(third, pairs.images[:3])
    np.testing.assert_array_equal(second, pairs.images[5:10])
    third[:] = 0
    assert pairs.images[:3].any()


@pytest.mark.parametrize("indices", [[], [-1, 3], [7, 7, 0]])
def test_indices_mean_what_they_mean_to_numpy(pairs, indices):
    wanted = np.array(indices, dtype=np.int64)
    np.testing.assert_array_equal(gathered(pairs, wanted, Buffers()), pairs.images[wanted])


def test_an_index_that_is_none_is_an_error(pairs):
    with pytest.raises(IndexError):
        gathered(pairs, np.array([3, 20]), Buffers())


@pytest.mark.parametrize("kind", ["pairs", "feed", "subset of a feed"])
def test_batches_come_with_their_images_in_order(pairs, kind):
    chosen = np.arange(20)[::-1].copy()
    source = {"pairs": pairs, "feed": Feed(pairs), "subset of a feed": subset(Feed(pairs), chosen)}[kind]
    expected = pairs.images[chosen] if kind.startswith("subset") else pairs.images
    order = np.split(np.random.default_rng(1).permutation(20), 4)
    for batch, images in fed(source, order):
        np.testing.assert_array_equal(images, expected[batch])


def test_what_was_asked_for_ahead_and_not_taken_is_dropped(pairs):
    feed = Feed(pairs)
    feed.prefetch(np.array([1, 2]))
    np.testing.assert_array_equal(feed.take(np.array([3])), pairs.images[[3]])
    feed.prefetch(np.array([4]))
    feed.prefetch(np.array([5]))
    np.testing.assert_array_equal(feed.take(np.array([5])), pairs.images[[5]])
    feed.prefetch(np.array([99]))
    with pytest.raises(IndexError):
        feed.take(np.array([99]))
    np.testing.assert_array_equal(feed.take(np.array([0])), pairs.images[[0]])
