"""The rule by which everything is chosen."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ubt.common.choice import Candidate, choose


def candidates(*rates, poisoned_ca=0.82):
    return [Candidate(asr, ca, poisoned_ca - ca, order) for order, (asr, ca) in enumerate(rates)]


def order_of(*rates, ca_floor=0.02):
    found = choose(candidates(*rates), ca_floor)
    return None if found is None else found.order


def test_the_lowest_asr_within_the_floor_wins():
    assert order_of((0.3, 0.82), (0.1, 0.81), (0.0, 0.5)) == 1


def test_a_tie_goes_to_the_higher_accuracy_then_to_the_earlier():
    assert order_of((0.1, 0.81), (0.1, 0.82), (0.1, 0.82)) == 1


def test_none_wins_where_none_qualifies():
    assert order_of((0.0, 0.79), (0.0, 0.5)) is None
    assert order_of() is None


@pytest.mark.parametrize("ca", [0.8, 0.81, 0.9])
def test_a_loss_on_the_floor_and_a_gain_qualify(ca):
    assert order_of((0.5, ca)) == 0


RATE = st.integers(0, 10).map(lambda tenth: tenth / 10)


@given(st.lists(st.tuples(RATE, RATE), max_size=12), RATE)
def test_no_other_that_qualifies_is_better(rates, floor):
    winner = order_of(*rates, ca_floor=floor)
    good = [(asr, -ca, at) for at, (asr, ca) in enumerate(rates) if 0.82 - ca <= floor + 1e-9]
    assert winner == (min(good)[2] if good else None)


def test_the_rule_needs_no_library():
    code = "import sys, ubt.common.choice; print(*{'numpy', 'pandas', 'torch', 'pydantic'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() == []
