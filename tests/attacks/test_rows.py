"""What is drawn anew for each image follows from its row and from nothing else."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ubt.attacks import Rows


def draws(rows, seed=0, purpose="noise"):
    return [int(rng.integers(1 << 40)) for rng in rows.generators(seed, purpose)]


@given(st.lists(st.integers(0, 10_000), max_size=20), st.integers(0, 3), st.randoms(use_true_random=False))
def test_rows_draw_the_same_in_any_order_and_among_any_others(numbers, seed, random):
    whole = dict(zip(numbers, draws(Rows("val", np.array(numbers, dtype=np.int64)), seed), strict=True))
    some = random.sample(numbers, random.randint(0, len(numbers)))
    assert draws(Rows("val", np.array(some, dtype=np.int64)), seed) == [whole[number] for number in some]


def test_another_row_split_seed_or_purpose_draws_otherwise():
    base = Rows.first(2)
    found = [*draws(base), *draws(Rows.first(2, "val")), *draws(base, seed=1), *draws(base, purpose="place")]
    assert len(set(found)) == len(found)
    assert draws(base) == draws(Rows.first(5))[:2]
    assert len(base) == 2
