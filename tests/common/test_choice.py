"""The rule by which everything is chosen."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ubt.common.choice import Candidate, Seen, choose, mean_candidate, nearest


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


# Without the trigger


def seen(*found):
    """Return candidates of (how alike, CA lost, held similarity lost), of whose ASR nothing is known."""
    return [
        Candidate(None, 0.82 - lost, lost, at, Seen(alike, held_lost))
        for at, (alike, lost, held_lost) in enumerate(found)
    ]


def test_without_the_trigger_the_least_loss_wins_among_those_no_longer_alike():
    found = seen((0.8, 0.0, 0.0), (0.09, 0.01, 0.03), (0.1, 0.01, 0.02), (0.0, 0.03, 0.0))
    assert choose(found, 0.02, "trigger_free").order == 2


def test_without_the_trigger_none_wins_while_all_are_alike_and_the_least_alike_is_nearest():
    found = seen((0.9, 0.0, 0.0), (0.3, 0.01, 0.03), (0.5, 0.0, 0.0))
    assert choose(found, 0.02, "trigger_free") is None
    assert nearest(found, "trigger_free").order == 1
    assert nearest(seen((0.11, 0.0, 0.0), (0.1, 0.3, 0.3), (0.0, 0.2, 0.3)), "trigger_free").order == 2


@given(st.lists(st.tuples(RATE, RATE, RATE), max_size=8), st.lists(RATE, min_size=8))
def test_without_the_trigger_asr_decides_nothing(found, asrs):
    blind = seen(*found)
    told = [Candidate(asr, one.ca, one.ca_lost, one.order, one.seen) for one, asr in zip(blind, asrs, strict=False)]
    for choice in (lambda given: choose(given, 0.2, "trigger_free"), lambda given: nearest(given, "trigger_free")):
        first, second = choice(blind[: len(told)]), choice(told)
        assert (first and first.order) == (second and second.order)


@pytest.mark.parametrize("rule", ["lowest_asr", "trigger_free"])
def test_what_a_rule_looks_at_has_to_be_measured(rule):
    blind = {"lowest_asr": Candidate(None, 0.9, 0.0, 0, Seen(0, 0)), "trigger_free": Candidate(0.0, 0.9, 0.0, 0)}[rule]
    assert choose([blind], 1.0, rule) is None
    assert nearest([blind], rule) is None


def test_what_a_stage_recorded_is_seen_only_if_it_recorded_all_of_it():
    observed = {"alike": 0.125, "held_similarity": 0.5, "held_similarity_before": 0.75}
    assert Seen.of({**observed, "telling_similarity": 0.3}) == Seen(alike=0.125, held_lost=0.25)
    for name in observed:
        assert Seen.of({other: value for other, value in observed.items() if other != name}) is None


def test_a_mean_has_what_each_of_its_parts_has():
    one, other = (Candidate(asr, 0.8, 0.02, 3, Seen(alike, 0.1)) for asr, alike in ((0.2, 0.25), (0.4, 0.75)))
    assert mean_candidate([one, other]) == Candidate(pytest.approx(0.3), 0.8, 0.02, 3, Seen(0.5, 0.1))
    assert mean_candidate([one, Candidate(None, 0.8, 0.02, 4)]) == Candidate(None, 0.8, 0.02, 3)


def test_the_rule_needs_no_library():
    code = "import sys, ubt.common.choice; print(*{'numpy', 'pandas', 'torch', 'pydantic'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() == []
