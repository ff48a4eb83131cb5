"""The report of an ablation study: what caused what comes first, and no ablated variant is crowned."""

import json
import re

import pytest

from analysis import load_run
from analysis.report import write_report
from ubt.trials.labels import TrialLabel


@pytest.fixture
def ablation(trial, run_folder):
    """A run folder of the base and of one without overfitting, which leaves a lower attack success rate."""

    def build(seeds=3, design="leave_one_out"):
        records = []
        for number, (name, asr) in enumerate((("base", 0.1), ("no-overfit", 0.02))):
            for seed in range(seeds):
                label = TrialLabel(component=name, words="" if name == "base" else "without overfitting")
                changes = {} if name == "base" else {"defense.unlearn_samples": 16}
                wiggle = 0.001 * ((seed + number) % 3)
                made = trial(number * seeds + seed, seed=seed, asr=asr + wiggle, ca=0.82, changes=changes)
                records.append(made.model_copy(update={"label": label if design == "leave_one_out" else TrialLabel()}))
        space = {} if design == "leave_one_out" else {"defense.unlearn_samples": [64, 16]}
        study = {"name": "toy", "search": {"design": design, "space": space}}
        return run_folder(*records, study=study)

    return build


def test_its_base_is_marked_as_such_and_not_as_a_choice(ablation):
    roles = load_run(ablation(seeds=3)).findings.roles
    assert set(roles.values()) == {"base"}
    assert len(roles) == 3
    assert "chosen" in load_run(ablation(seeds=3, design="ofat")).findings.roles.values()


def header(page: str) -> str:
    return re.search(r"<header>(.*?)</header>", page, re.DOTALL)[1]


@pytest.mark.parametrize("design", ["leave_one_out", "ofat"])
@pytest.mark.parametrize("seeds", [1, 3])
def test_the_headline_says_what_matters_and_crowns_no_variant(ablation, design, seeds):
    page = write_report(ablation(seeds, design)).page.read_text()
    title = re.search(r"<h1>(.*?)</h1>", page)[1]
    told = "of 1 change" if seeds > 1 else "1 change of the base, under one seed"
    assert told in title
    assert "chosen" not in header(page).lower()


def test_what_caused_what_is_the_first_section(ablation):
    page = write_report(ablation()).page.read_text()
    assert re.findall(r'<section id="([^"]+)"', page)[:2] == ["effects", "front-table"]
    assert "without overfitting" in page


@pytest.mark.parametrize("seeds", [1, 3])
def test_the_table_begins_with_the_base_and_its_rates_and_marks_it(ablation, seeds):
    page = write_report(ablation(seeds)).page.read_text()
    section = re.search(r'<section id="effects">(.*?)</section>', page, re.DOTALL)[1]
    _, first, second, *_ = re.findall(r"<tr.*?</tr>", section, re.DOTALL)
    assert '<span class="tag base">base</span>' in first
    assert "11.1%" in first or "11.0%" in first  # what it leaves on test
    assert "without overfitting" in second
    assert "base</span>" not in second


def test_components_have_their_figure_and_no_search_s(ablation):
    page = write_report(ablation()).page.read_text()
    figures = re.findall(r'<section id="([^"]+)" class="figure"', page)
    assert figures[0] == "components"
    assert not {"knobs", "pairs", "parallel", "growth"} & set(figures)


def test_the_choice_of_components_left_out_is_the_base(ablation):
    folder = ablation()
    findings = load_run(folder).findings
    assert findings.chosen is findings.base
    summary = json.loads((write_report(folder).page.parent / "summary.json").read_text())
    assert summary["chosen"]["trial"] == "trial-0"


def test_the_effects_lie_beside_the_page(ablation):
    folder = ablation()
    names = {file.name for file in write_report(folder).files}
    assert {"effects.csv", "effects.tex"} <= names
    assert load_run(folder).effects.loc[0, "name"] == "without overfitting"
    assert load_run(folder).effects_markdown.startswith("| change | ASR |")


def test_a_search_has_no_section_of_effects_and_keeps_its_choice(run_folder, trial):
    page = write_report(run_folder(trial(0, asr=0.1, ca=0.82), trial(1, asr=0.05, ca=0.82))).page.read_text()
    assert "chosen" in header(page)


def test_of_many_interactions_the_page_has_the_largest(run_folder, trial):
    ratios, samples = [0.01 * at for at in range(1, 8)], [16 * at for at in range(1, 8)]
    changes = [{"defense.suspicious_ratio": r, "defense.unlearn_samples": s} for r in ratios for s in samples]
    records = [trial(at, asr=0.1 + 0.001 * (at * at % 7), changes=change) for at, change in enumerate(changes)]
    space = {"defense.suspicious_ratio": ratios, "defense.unlearn_samples": samples}
    report = write_report(run_folder(*records, study={"name": "toy", "search": {"design": "grid", "space": space}}))
    assert "The 30 largest of 36; effects.csv has all." in report.page.read_text()
    assert "importances.csv" in {file.name for file in report.files}
