"""What the sanity gates found: in the tables, in the summary, in the report, and in a comparison."""

import pytest

from analysis import load_run, write_report
from analysis.comparison import compare
from analysis.comparison.output import notes
from analysis.findings import find
from analysis.gates import gate_table
from analysis.summary import summarise
from ubt.trials.gates import GateOutcome

SAMPLES = "defense.unlearn_samples"


def gate(outcome, name="clean_accuracy", measured=0.01):
    reason = "" if outcome == "passed" else "hardly better than chance"
    return GateOutcome(
        gate=name, stage="load", measured=measured, threshold=0.05, outcome=outcome, knew="labels", reason=reason
    )


@pytest.fixture
def records(trial):
    return [
        trial(0, gates=[gate("passed", measured=0.5), gate("reported", "overfit_auroc", 0.4)]),
        trial(1, gates=[gate("passed", measured=0.5), gate("reported", "overfit_auroc", 0.4)], changes={SAMPLES: 8}),
        trial(2, state="FAILED", fault="StoppedByGate", gates=[gate("stopped")], changes={SAMPLES: 16}),
    ]


def test_each_trial_has_what_a_gate_found_and_measured(run_folder, records):
    trials = load_run(run_folder(*records)).trials
    assert list(trials["gate.clean_accuracy"]) == ["passed", "passed", "stopped"]
    assert list(trials["gate.clean_accuracy.measured"]) == [0.5, 0.5, 0.01]
    assert trials["gate.overfit_auroc"].isna().tolist() == [False, False, True]


def test_the_summary_counts_them(run_of, records):
    assert summarise(find(run_of(*records))).gates == {
        "clean_accuracy": {"passed": 2, "stopped": 1},
        "overfit_auroc": {"reported": 2},
    }


def test_the_report_tells_each_finding_that_did_not_pass_once(run_of, run_folder, records):
    rows = gate_table(find(run_of(*records))).rows
    assert [[cell.text for cell in row[:6]] for row in rows] == [
        ["overfit_auroc", "load", "reported", "2 trials", "0.4", "0.05"],
        ["clean_accuracy", "load", "stopped", "trial-2", "0.01", "0.05"],
    ]
    page = write_report(run_folder(*records)).page.read_text(encoding="utf-8")
    assert 'id="gates"' in page
    assert "hardly better than chance" in page


def test_a_run_whose_gates_all_passed_has_no_such_section(run_folder, trial):
    page = write_report(run_folder(trial(0, gates=[gate("passed")]))).page.read_text(encoding="utf-8")
    assert 'id="gates"' not in page


def test_a_comparison_says_which_victim_a_gate_stopped(run_of, records, trial):
    other = trial(3, changes={"defense": {"kind": "finetune"}})
    (note,) = (note for note in notes(compare(find(run_of(*records, other)))) if "gate" in note)
    assert note == "A gate stopped trials of BadNets: hardly better than chance."


def test_classes_are_a_table(run_folder, trial, rates):
    counts = {"images": [3, 2], "correct": [1, 2], "triggered": [0, 2], "hits": [0, 1]}
    clean = {"images": [3, 2], "correct": [3, 2]}
    record = trial(
        0,
        classes=["boat", "tree"],
        val=rates(0.5, 0.6).model_copy(update={"per_class": counts}).as_json(),
        clean_val=rates(None, 1.0).model_copy(update={"per_class": clean}).as_json(),
    )
    table = load_run(run_folder(record)).classes.set_index(["rates", "class"])
    assert table.index.tolist() == [("val", "boat"), ("val", "tree"), ("clean_val", "boat"), ("clean_val", "tree")]
    assert table.loc["val", "hits"].tolist() == [0, 1]
    assert table.loc["clean_val", "triggered"].isna().all()
