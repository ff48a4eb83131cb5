"""Earlier epochs as candidates: which there are, which of equal models stands, and what is to be judged in full."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.findings import find, to_judge
from analysis.points.candidates import candidates
from analysis.points.configurations import configurations
from analysis.summary import summarise
from ubt.trials.record import EpochRecord, StageRecord, State

EPOCHS, SAMPLES = "defense.unlearn_epochs", "defense.unlearn_samples"
Pair = tuple[float, float]


@pytest.fixture(scope="session")
def course(trial, rates):
    """The builder of a trial that was judged after each of its epochs, asked for as many unless `of` says more."""

    def build(number: int, pairs: Sequence[Pair], of: int | None = None, subset: str = "all", **fields):
        changes = {EPOCHS: of or len(pairs), **fields.pop("changes", {})}
        judged = [rates(*pair).model_copy(update={"subset": subset}) for pair in pairs]
        epochs = tuple(EpochRecord(epoch=at, seconds=1, val=val) for at, val in enumerate(judged, 1))
        stage = StageRecord(stage="unlearn", key=f"u{number}", reused=False, seconds=3, epochs=epochs)
        asr, ca = pairs[-1]
        return trial(number, asr=asr, ca=ca, changes=changes, stages=(stage,), **fields)

    return build


def names(found):
    return [one.name for one in found]


def every(run):
    return find(replace(run, epochs="every"))


def test_every_judged_epoch_is_a_candidate_and_the_last_one_is_the_trial_itself(course):
    found = candidates(configurations([course(0, [(0.5, 0.7), (0.2, 0.8), (0.1, 0.75)])]))
    assert sorted(names(found)) == ["trial-0", "trial-0@1", "trial-0@2"]
    second = next(one for one in found if one.at and one.at.number == 2)
    assert (second.val.asr.mean, second.val.ca.mean) == (0.2, 0.8)
    assert second.changes[EPOCHS] == second.config["defense"]["unlearn_epochs"] == 2
    assert second.test is None
    assert second.epoch == 2


def test_front_choice_and_hypervolume_take_the_better_epoch(course, run_of):
    other = course(1, [(0.3, 0.8), (0.1, 0.805)], changes={SAMPLES: 8})
    run = run_of(course(0, [(0.5, 0.7), (0.0, 0.81), (0.0, 0.5)]), other)
    assert names(every(run).front) == ["trial-0@2"]
    assert every(run).chosen.name == "trial-0@2"
    assert names(find(run).front) == ["trial-0", "trial-1"]
    assert find(run).chosen.name == "trial-1"
    before, after = (summarise(findings) for findings in (find(run), every(run)))
    assert (before.hypervolume, after.hypervolume) == (pytest.approx(0.9 * 0.305 + 0.5), pytest.approx(0.81))
    assert (after.chosen.trial, after.chosen.name, after.chosen.epoch) == ("trial-0", "trial-0@2", 2)
    assert after.chosen.config[EPOCHS] == 2


def test_a_trial_that_ends_at_an_epoch_stands_for_it(course, run_of):
    long, short = course(0, [(0.5, 0.7), (0.0, 0.81), (0.0, 0.5)]), course(1, [(0.5, 0.7), (0.0, 0.81)])
    found = every(run_of(long, short))
    assert names(found.front) == ["trial-1"]
    assert found.chosen.test is not None
    assert to_judge(found) == ()


def test_another_setting_or_seed_is_another_model(course, run_of):
    long = course(0, [(0.0, 0.81), (0.1, 0.5)])
    other = course(1, [(0.2, 0.82)], changes={SAMPLES: 8})
    assert names(to_judge(every(run_of(long, other)))) == ["trial-0@1"]
    seeds = [course(0, [(0.0, 0.81), (0.1, 0.5)]), course(1, [(0.4, 0.81), (0.1, 0.5)], seed=1)]
    (first,) = [one for one in candidates(configurations(seeds)) if one.at]
    assert first.val.asr.mean == pytest.approx(0.2)
    assert first.poisoned_val == configurations(seeds)[0].poisoned_val


def test_an_epoch_counts_only_where_every_seed_has_judged_it(course):
    whole = course(0, [(0.5, 0.7), (0.2, 0.8), (0.1, 0.8)])
    stopped = course(1, [(0.6, 0.7)], of=3, seed=1, state="PRUNED")
    found = candidates(configurations([whole, stopped]))
    assert names(found) == ["trial-0@1"]
    assert found[0].val.asr.mean == pytest.approx(0.55)


def test_pruned_trials_keep_what_they_have_measured_and_failed_ones_do_not_count(course, run_of):
    pruned = course(0, [(0.5, 0.7), (0.0, 0.82)], of=5, state="PRUNED")
    failed = course(1, [(0.0, 0.9)], of=5, state="FAILED", changes={SAMPLES: 8})
    found = every(run_of(pruned, failed, course(2, [(0.3, 0.81)], changes={SAMPLES: 16})))
    assert names(found.front) == ["trial-0@2"]
    assert found.chosen.first.state is State.PRUNED


def test_an_epoch_judged_on_a_part_is_judged_in_full_before_it_may_be_chosen(course, run_of):
    other = course(1, [(0.1, 0.81)], changes={SAMPLES: 8})
    run = run_of(course(0, [(0.0, 0.82), (0.2, 0.81)], subset="stride-4"), other)
    found = every(run)
    assert "trial-0@1" not in names(found.front)
    assert found.chosen.name == "trial-1"
    assert names(to_judge(found)) == ["trial-0@1"]


def test_of_equal_epochs_of_a_configuration_the_end_stands_or_else_the_first(course, run_of):
    assert names(every(run_of(course(0, [(0.3, 0.7), (0.0, 0.81), (0.0, 0.81)]))).front) == ["trial-0"]
    found = every(run_of(course(0, [(0.0, 0.81), (0.0, 0.81), (0.3, 0.7)])))
    assert names(found.front) == ["trial-0@1"]
    assert found.chosen.name == "trial-0@1"


def test_a_defense_whose_epochs_cannot_be_cut_short_competes_at_its_end(course, trial, run_of):
    assert names(candidates(configurations([trial(0)]))) == ["trial-0"]  # its settings have no number of epochs
    unknown = course(0, [(0.0, 0.81), (0.1, 0.5)])
    stages = tuple(stage.model_copy(update={"stage": "of-a-plug-in"}) for stage in unknown.stages)
    assert names(candidates(configurations([unknown.model_copy(update={"stages": stages})]))) == ["trial-0"]


def test_a_comparison_and_an_ablation_look_at_ends(course, run_of):
    records = [
        course(0, [(0.0, 0.82), (0.2, 0.81)]),
        course(1, [(0.0, 0.9), (0.3, 0.81)], label="no-overfit", changes={SAMPLES: 8}),
    ]
    assert names(every(run_of(*records)).candidates) == ["trial-0", "trial-1"]


RATE = st.integers(0, 6).map(lambda sixth: sixth / 6)


@given(st.lists(st.lists(st.tuples(RATE, RATE), min_size=1, max_size=4), min_size=1, max_size=5))
def test_no_judged_epoch_beats_a_member_of_the_front(course, run_of, courses):
    records = [course(at, pairs, changes={SAMPLES: at}) for at, pairs in enumerate(courses)]
    front = [one.point for one in every(run_of(*records)).front]
    points = {pair for pairs in courses for pair in pairs}
    beaten = {q for q in points for p in points if p != q and p[0] <= q[0] and p[1] >= q[1]}
    assert set(front) == points - beaten
