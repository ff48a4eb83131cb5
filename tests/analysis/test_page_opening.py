import pytest

from analysis.findings import find
from analysis.opening.words import opening
from analysis.summary import summarise

SAMPLES = "defense.unlearn_samples"


@pytest.fixture
def told(run_of):
    def tell(*records, **fields):
        findings = find(run_of(*records, **fields))
        return opening(findings, summarise(findings))

    return tell


def test_the_title_tells_the_test_split_before_and_after(told, trial):
    line = told(trial(0, asr=0.1, ca=0.81))
    assert (
        line.title
        == "Attack success falls from 89.0% to 11.0%, clean accuracy does not clearly change (83.0%, then 82.0%)"
    )
    assert "test split" in line.detail
    assert [change.after.mean for change in line.changes] == [0.11, pytest.approx(0.82)]


def test_without_test_rates_validation_is_told_and_named(told, trial):
    line = told(trial(0, asr=0.1, ca=0.81, test=None))
    assert "from 90.0% to 10.0%" in line.title
    assert "Measured on the validation split" in line.detail


def test_without_a_choice_it_says_so_plainly(told, trial):
    line = told(trial(0, ca=0.7), trial(1, ca=0.5, changes={SAMPLES: 8}))
    assert line.title == "No trial keeps clean accuracy"
    assert "within 2 points of the poisoned model’s 82.0%; the highest, trial-0, reaches 70.0%" in line.detail
    assert line.changes == ()


def test_before_any_trial_is_done_it_says_that(told, trial):
    assert told(trial(0, state="RUNNING")).title == "No trial is done yet"


def test_the_effort_counts_trials_and_the_time_that_sharing_saved(told, trial):
    line = told(trial(0), trial(1, state="FAILED", fault="ValueError", changes={SAMPLES: 8}))
    assert line.effort.startswith("2 trials: 1 done and 1 failed (1 by a mistake).")
    assert "sharing 1 of 2 saved 10 s, 71.4% of the work" in line.effort


def test_trials_in_one_state_are_told_shortly(told, trial):
    assert told(trial(0)).effort.startswith("1 trial, done.")
    failed = {"state": "FAILED", "fault": "ValueError"}
    assert told(trial(0, **failed), trial(1, **failed)).effort == (
        "2 trials, all failed (2 by a mistake). No stage is finished yet."
    )


def test_what_an_old_record_failed_by_is_not_guessed(told, trial):
    assert told(trial(0, state="FAILED")).effort.startswith("1 trial, failed. ")


def test_a_run_that_shared_nothing_says_so(told, trial):
    unshared = tuple(
        stage.model_copy(update={"reused": False, "spent_seconds": stage.seconds}) for stage in trial(0).stages
    )
    assert told(trial(0, stages=unshared)).effort.endswith("The stages took 14 s to compute; none was shared.")


def test_a_victim_that_guesses_is_said_to_and_nothing_is_told_of_its_defense(told, trial, rates):
    classes = tuple("abcdefghij")
    victim = {"poisoned_val": rates(0.3, 0.1), "poisoned_test": rates(0.33, 0.11)}
    line = told(trial(0, asr=0.0, ca=0.1, classes=classes, **victim))
    assert line.title == "The poisoned model classifies by chance"
    assert "guessing among 10 classes (10.0%)" in line.detail
    assert line.changes == ()
    better = {"poisoned_val": rates(0.3, 0.5), "poisoned_test": rates(0.33, 0.5)}
    assert "chance" not in told(trial(0, asr=0.0, ca=0.5, classes=classes, **better)).title


def test_a_rate_that_falls_and_rises_from_seed_to_seed_has_not_clearly_changed(told, trial, rates):
    victim = {"poisoned_val": rates(0.5, 0.8), "poisoned_test": rates(0.5, 0.8)}
    asrs = (0.1, 0.9, 0.2)
    line = told(*(trial(seed, seed=seed, asr=asr, ca=0.8, **victim) for seed, asr in enumerate(asrs)))
    assert "Attack success does not clearly change (50.0%, then 41.0%)" in line.title
