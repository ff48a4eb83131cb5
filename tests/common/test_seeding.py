import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ubt.common.hashing import derive, numpy_generator, torch_generator


def test_a_derived_seed_is_the_top_63_bits_of_a_sha_256():
    digest = hashlib.sha256(b"7\x1foverfit\x1forder\x1f3").digest()
    assert derive(7, "overfit", "order", 3) == int.from_bytes(digest[:8], "big") // 2


@given(st.integers(0, 2**63), st.lists(st.text() | st.integers(), max_size=4))
def test_a_derived_seed_is_one_that_torch_and_numpy_take(seed, purpose):
    assert 0 <= derive(seed, *purpose) < 2**63
    torch_generator(seed, *purpose)
    numpy_generator(seed, *purpose)


def test_seed_purpose_and_the_borders_of_its_words_all_matter():
    calls = [
        (0,),
        (1,),
        (0, "a"),
        (1, "a"),
        (0, "ab"),
        (0, "a", "b"),
        (0, "b", "a"),
        (0, "a", 1),
        (0, "a", 2),
        (0, "a1"),
    ]
    assert len({derive(*call) for call in calls}) == len(calls)


def draw(generator):
    if isinstance(generator, torch.Generator):
        return torch.rand(5, generator=generator).tolist()
    return generator.random(5).tolist()


@pytest.mark.parametrize("make", [numpy_generator, torch_generator])
def test_a_generator_is_the_same_for_the_same_purpose_alone(make):
    assert draw(make(0, "poison")) == draw(make(0, "poison"))
    assert draw(make(0, "poison")) != draw(make(1, "poison"))
    assert draw(make(0, "poison")) != draw(make(0, "captions"))


def test_the_global_generators_are_left_alone():
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    draw(numpy_generator(0, "a"))
    draw(torch_generator(0, "a"))
    assert torch.equal(torch.random.get_rng_state(), before[0])
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])
