import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.findings import choose
from analysis.points.configurations import configurations


def chosen_number(records, ca_floor=0.02):
    chosen = choose(configurations(records), ca_floor)
    return None if chosen is None else chosen.number


def sweep(trial, *rates, **fields):
    return [
        trial(i, asr=asr, ca=ca, changes={"defense.unlearn_samples": i}, **fields) for i, (asr, ca) in enumerate(rates)
    ]


def test_the_lowest_asr_above_the_floor_is_chosen(trial):
    # The poisoned model has a validation CA of 0.82.
    assert chosen_number(sweep(trial, (0.3, 0.82), (0.1, 0.81), (0.0, 0.5))) == 1


def test_a_tie_goes_to_the_higher_accuracy_then_to_the_lower_number(trial):
    assert chosen_number(sweep(trial, (0.1, 0.81), (0.1, 0.82), (0.1, 0.82))) == 1


@pytest.mark.parametrize("poisoned_ca", [0.82, 0.57, 0.7, 0.31])
def test_accuracy_exactly_on_the_floor_qualifies(trial, rates, poisoned_ca):
    records = sweep(trial, (0.1, round(poisoned_ca - 0.02, 4)), poisoned_val=rates(0.9, poisoned_ca))
    assert chosen_number(records) == 0


def test_nothing_is_chosen_if_none_keeps_accuracy(trial):
    assert chosen_number(sweep(trial, (0.0, 0.79), (0.1, 0.5))) is None


def test_failed_trials_and_trials_of_an_unmeasured_victim_are_not_chosen(trial):
    assert chosen_number([trial(0, state="FAILED")]) is None
    assert chosen_number([trial(0, poisoned_val=None)]) is None


def test_each_trial_is_held_against_its_own_victim(trial, rates):
    weak = trial(0, asr=0.0, ca=0.6, changes={"victim.attack.target": 1}, poisoned_val=rates(0.9, 0.61))
    assert chosen_number([weak, trial(1, asr=0.1, ca=0.81)]) == 0


def test_the_mean_over_seeds_decides(trial):
    lucky = [trial(0, seed=0, asr=0.0), trial(1, seed=1, asr=0.8)]
    steady = [trial(2 + s, seed=s, asr=0.2, ca=0.81, changes={"defense.unlearn_samples": 8}) for s in (0, 1)]
    assert chosen_number(lucky + steady) == 2


RATE = st.integers(0, 10).map(lambda tenth: tenth / 10)


@given(st.lists(st.tuples(RATE, RATE), max_size=12))
def test_no_other_qualified_trial_has_a_lower_asr(trial, pairs):
    number = chosen_number(sweep(trial, *pairs))
    qualified = {i: asr for i, (asr, ca) in enumerate(pairs) if ca >= 0.8 - 1e-9}
    assert number in qualified if qualified else number is None
    assert all(qualified[number] <= asr for asr in qualified.values())
