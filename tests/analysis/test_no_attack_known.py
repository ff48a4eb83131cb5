"""Runs whose attack is not known: clean accuracy is measured, the attack success rate is not; nothing is invented."""

import json

import pandas as pd
import pytest

from analysis import write_report
from analysis.comparison import compare, comparison_table
from analysis.comparison.output import comparison_markdown, contest
from analysis.figures.base import Absent
from analysis.figures.epochs import draw_epochs, epochs_info
from analysis.figures.front import front_info
from analysis.figures.knobs import draw_knobs, knobs_info
from analysis.findings import find
from analysis.opening.words import opening
from analysis.page import trial_table
from analysis.paper.defenses import defenses_info, draw_defenses
from analysis.summary import summarise

SAMPLES = "defense.unlearn_samples"


@pytest.fixture
def records(trial):
    return [trial(0, asr=None, ca=0.81), trial(1, asr=None, ca=0.7, changes={SAMPLES: 8})]


@pytest.fixture
def findings(run_of, records):
    return find(run_of(*records))


def test_a_run_without_any_asr_still_makes_a_report(run_folder, records):
    report = write_report(run_folder(*records))
    page = report.page.read_text(encoding="utf-8")
    assert "No attack is known, so there is no front." in page
    trials = pd.read_csv(report.page.parent / "trials.csv")
    assert trials["val_asr"].isna().all()
    assert list(trials["val_ca"]) == [0.81, 0.7]
    summary = json.loads((report.page.parent / "summary.json").read_text())
    assert summary["poisoned"]["val"] == {"asr": None, "ca": 0.82}
    assert (summary["chosen"], summary["front"], summary["hypervolume"]) == (None, [], 0)


def test_there_is_no_front_and_no_choice_and_the_page_says_why(findings):
    assert (findings.front, findings.chosen) == ((), None)
    line = opening(findings, summarise(findings))
    assert (line.title, line.changes) == ("No attack is known", ())
    cells = {
        column.title: cell
        for column, cell in zip(trial_table(findings).columns, trial_table(findings).rows[0], strict=True)
    }
    assert (cells["val ASR"].text, cells["val CA"].text) == ("–", "81.0%")


def test_of_configurations_with_and_without_a_known_attack_only_the_former_compete(run_of, trial, records):
    attacked = trial(2, asr=0.3, ca=0.81, changes={SAMPLES: 16})
    findings = find(run_of(*records, attacked))
    assert [one.name for one in (*findings.front, findings.chosen)] == ["trial-2", "trial-2"]
    assert [configuration.name for configuration in sorted(findings.configurations, key=lambda c: c.rank)] == [
        "trial-2",
        "trial-0",
        "trial-1",
    ]


def test_figures_leave_out_the_attack_success_rate_with_a_word(findings):
    absent = front_info(findings)
    assert isinstance(absent, Absent)
    assert "No attack is known" in absent.why


def test_the_figure_of_knobs_has_a_row_of_clean_accuracy_alone(findings):
    figure = draw_knobs(knobs_info(findings))
    assert figure.layout.yaxis.title.text == "CA"
    assert "yaxis2" not in figure.to_dict()["layout"]
    assert "ASR" not in figure.to_json()


def test_the_figure_of_epochs_has_clean_accuracy_alone(findings):
    figure = draw_epochs(epochs_info(findings))
    assert figure.layout.yaxis.title.text == "clean accuracy"
    assert "yaxis2" not in figure.to_dict()["layout"]
    assert any(trace.showlegend for trace in figure.data)


def test_a_comparison_tells_accuracy_and_holds_nobody_against_the_method(run_of, trial):
    rows = [trial(0, asr=None), trial(1, asr=None, ca=0.7, changes={"defense": {"kind": "finetune"}})]
    findings = find(run_of(*rows))
    comparison = compare(findings)
    assert contest(comparison) is None
    assert "| – / 81.0 (" in comparison_markdown(comparison)
    assert comparison_table(comparison)["asr"].isna().all()
    assert comparison_table(comparison)["ca"].notna().all()
    draw_defenses(defenses_info(findings))
