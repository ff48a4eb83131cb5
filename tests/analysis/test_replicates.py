import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.points.configurations import configurations
from ubt.common.statistics import t_interval, wilson_interval


def test_trials_that_differ_by_seed_alone_are_one_configuration(trial):
    other = {"defense.unlearn_samples": 8}
    found = configurations([trial(0, seed=0), trial(1, seed=1), trial(2, seed=0, changes=other)])
    assert [[member.number for member in c.trials] for c in found] == [[0, 1], [2]]


def test_without_further_seeds_configurations_are_the_trials_with_wilsons_interval(trial):
    (found,) = configurations([trial(0, asr=0.1)])
    assert found.val.asr.mean == 0.1
    assert (found.val.asr.low, found.val.asr.high) == wilson_interval(100, 1000)


def test_several_seeds_are_averaged_with_students_interval_that_ends_at_0_and_1(trial):
    (found,) = configurations([trial(i, seed=i, asr=asr) for i, asr in enumerate([0.1, 0.2, 0.6])])
    assert found.val.asr.mean == pytest.approx(0.3)
    assert found.val.asr.low == 0
    assert found.val.asr.high == pytest.approx(t_interval([0.1, 0.2, 0.6])[1])
    assert found.test.asr.mean == pytest.approx(0.31)


def test_seeds_that_agree_keep_wilsons_interval_instead_of_none(trial):
    (found,) = configurations([trial(0, seed=0, asr=0.0), trial(1, seed=1, asr=0.0)])
    assert found.val.asr.high == wilson_interval(0, 1000)[1]
    assert found.poisoned_val.asr.low < found.poisoned_val.asr.high


def test_failed_seeds_are_counted_but_not_averaged(trial):
    (found,) = configurations([trial(0, seed=0, state="FAILED"), trial(1, seed=1, asr=0.2)])
    assert (found.seeds, len(found.measured)) == (2, 1)
    assert found.val.asr.mean == 0.2
    assert found.name == "trial-1"


def test_a_seed_met_twice_is_one_replicate(trial):
    (found,) = configurations([trial(0, seed=0, asr=0.1), trial(1, seed=0, asr=0.1), trial(2, seed=1, asr=0.4)])
    assert found.val.asr.mean == pytest.approx(0.25)
    assert [trial.number for trial in found.measured] == [0, 2]
    (found,) = configurations([trial(0, seed=0), trial(1, seed=1), trial(2, seed=0)])
    assert [trial.number for trial in found.measured] == [0, 1]


def test_a_configuration_without_a_done_trial_still_knows_its_victim(trial):
    (found,) = configurations([trial(0, state="FAILED")])
    assert found.val is None
    assert found.poisoned_val.asr.mean == 0.9
    assert found.name == "trial-0"


def test_the_best_ranks_first_and_what_is_not_measured_last(trial):
    rates = [(0.3, 0.9), (0.1, 0.7), (0.1, 0.8)]
    records = [trial(i, asr=a, ca=c, changes={"defense.unlearn_samples": i}) for i, (a, c) in enumerate(rates)]
    failed = trial(9, state="FAILED", changes={"defense.unlearn_samples": 9})
    ranked = sorted(configurations([failed, *records]), key=lambda configuration: configuration.rank)
    assert [configuration.number for configuration in ranked] == [2, 1, 0, 9]


@given(st.permutations(range(4)))
def test_the_order_of_records_changes_nothing(trial, order):
    records = [trial(i, seed=i % 2, asr=0.1 * i, changes={"defense.unlearn_samples": 8 + i // 2}) for i in range(4)]
    assert configurations([records[i] for i in order]) == configurations(records)
