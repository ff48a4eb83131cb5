"""A comparison has several victims: nothing is chosen over them, and no front is drawn through them."""

from analysis.findings import find
from analysis.opening.words import opening
from analysis.summary import summarise

LABELS = ("search:ubt/badnets", "table:ubt/badnets", "table:ubt/sig (search failed)", "table:none/sig")


def compared(run_of, trial):
    return find(run_of(*(trial(at, label=label, changes={"defense.n": at}) for at, label in enumerate(LABELS))))


def test_a_comparison_says_what_it_compares(run_of, trial):
    assert compared(run_of, trial).run.compared == "2 defenses against 2 attacks"
    assert run_of(trial(0), trial(1, label="no-overfit")).compared == ""


def test_nothing_is_chosen_and_no_victim_stands_for_all(run_of, trial):
    summary = summarise(compared(run_of, trial))
    assert summary.compared == "2 defenses against 2 attacks"
    assert (summary.chosen, summary.front, summary.hypervolume) == (None, (), 0.0)
    assert (summary.poisoned.val, summary.poisoned.test) == (None, None)
    assert summary.states["DONE"] == 4


def test_the_headline_is_of_the_comparison(run_of, trial):
    findings = compared(run_of, trial)
    told = opening(findings, summarise(findings))
    assert told.title == "2 defenses against 2 attacks"
    assert told.changes == ()
    assert "4 trials" in told.effort
