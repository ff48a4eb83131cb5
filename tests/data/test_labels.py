import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ubt.data.labelled import stratified_split

LABELS = st.lists(st.integers(0, 6), max_size=80).map(lambda labels: np.array(labels, dtype=np.int64))
FRACTIONS = st.floats(0.01, 0.99)
SEEDS = st.integers(0, 2**32)


@given(LABELS, FRACTIONS, SEEDS)
def test_the_two_parts_are_disjoint_and_complete(labels, fraction, seed):
    val, test = stratified_split(labels, fraction, seed)
    np.testing.assert_array_equal(np.sort(np.concatenate([val, test])), np.arange(len(labels)))


@given(LABELS, FRACTIONS, SEEDS)
def test_equal_seeds_give_equal_parts(labels, fraction, seed):
    first, again = stratified_split(labels, fraction, seed), stratified_split(labels, fraction, seed)
    for part, same in zip(first, again, strict=True):
        np.testing.assert_array_equal(part, same)


@given(LABELS, FRACTIONS, SEEDS)
def test_the_fraction_holds_in_every_class_to_within_one_image(labels, fraction, seed):
    val, _ = stratified_split(labels, fraction, seed)
    for label in np.unique(labels):
        wanted = fraction * np.sum(labels == label)
        assert abs(np.sum(labels[val] == label) - wanted) < 1 + 1e-6


@given(LABELS, FRACTIONS, SEEDS)
def test_the_fraction_holds_over_all_to_half_an_image(labels, fraction, seed):
    val, _ = stratified_split(labels, fraction, seed)
    assert abs(len(val) - fraction * len(labels)) <= 0.5 + 1e-6


@given(SEEDS)
def test_one_image_per_class_is_split_all_the_same(seed):
    val, test = stratified_split(np.arange(200), 0.5, seed)
    assert len(val) == len(test) == 100


def test_another_seed_gives_other_parts():
    labels = np.arange(300) % 10
    assert not np.array_equal(stratified_split(labels, 0.5, 0)[0], stratified_split(labels, 0.5, 1)[0])
