"""The rule that chooses, and what a report says of it."""

import pytest

from analysis import write_report
from analysis.findings import find
from analysis.opening.words import opening
from analysis.summary import summarise
from ubt.common.choice import KNOWS
from ubt.trials.record import EpochRecord, StageRecord

KNOB = "defense.unlearn_samples"


@pytest.fixture
def unlearnt(trial):
    """Return a maker of trials that record what is seen of their model; `alike` None records nothing."""

    def make(number, *, alike, held=0.7, **fields):
        observed = {} if alike is None else {"alike": alike, "held_similarity": held, "held_similarity_before": 0.75}
        epoch = EpochRecord(epoch=1, seconds=1, observed=observed)
        stage = StageRecord(stage="unlearn", key=f"u{number}", reused=False, seconds=1, epochs=(epoch,))
        return trial(number, stages=(stage,), changes={KNOB: number + 1}, **fields)

    return make


@pytest.fixture
def by_rule(loaded):
    """Return a maker of runs whose study chooses by a rule."""
    space = {"space": {KNOB: [1, 2, 3]}}
    return lambda rule, *records: loaded(
        *records, study={"name": "toy", "objectives": {"ca_floor": 0.02, "rule": rule}, "search": space}
    )


def test_without_the_trigger_another_trial_is_chosen_and_both_are_told(by_rule, unlearnt):
    trials = (
        unlearnt(0, asr=0.30, ca=0.82, alike=0.9),
        unlearnt(1, asr=0.02, ca=0.82, alike=0.1),
        unlearnt(2, asr=0.00, ca=0.81, alike=0.0),
    )
    for rule, chosen, other in (("trigger_free", "trial-1", "trial-2"), ("lowest_asr", "trial-2", "trial-1")):
        findings = find(by_rule(rule, *trials))
        summary = summarise(findings)
        assert (summary.rule, summary.knew) == (rule, KNOWS[rule])
        assert summary.chosen.trial == chosen
        assert [choice.trial for choice in summary.otherwise.values()] == [other]
        detail = opening(findings, summary).detail
        assert KNOWS[rule] in detail
        assert f"{other} would have been chosen" in detail


def test_without_an_attack_a_choice_can_be_made(by_rule, unlearnt):
    findings = find(
        by_rule("trigger_free", unlearnt(0, asr=None, alike=0.9), unlearnt(1, asr=None, ca=0.81, alike=0.1))
    )
    summary = summarise(findings)
    assert summary.chosen.trial == "trial-1"
    assert summary.otherwise == {}
    assert "clean accuracy" in opening(findings, summary).title.lower()
    assert "trial-1" in write_report(findings.run.folder).page.read_text()


def test_none_is_chosen_while_selected_pairs_are_alike(by_rule, unlearnt):
    findings = find(by_rule("trigger_free", unlearnt(0, asr=0.0, ca=0.82, alike=0.6)))
    summary = summarise(findings)
    assert summary.chosen is None
    assert opening(findings, summary).title == "No trial qualifies"


def test_what_was_run_before_anything_was_seen_is_chosen_by_asr_alone(by_rule, unlearnt):
    summary = summarise(find(by_rule("lowest_asr", unlearnt(0, asr=0.0, ca=0.82, alike=None))))
    assert summary.chosen.trial == "trial-0"
    assert summary.otherwise == {}
