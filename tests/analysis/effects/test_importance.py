"""Importances of knobs whose part in each rate is known by construction."""

import sys
from contextlib import closing

import numpy as np
import pytest

from analysis.effects import begin_importances, find_importances, importance
from analysis.effects.evaluator_process import EvaluatorProcess
from analysis.effects.output import importance_notes, importances_table
from analysis.findings import find

RATIO, SAMPLES, THRESHOLD = "defense.suspicious_ratio", "defense.unlearn_samples", "defense.token_threshold"


@pytest.fixture(scope="module")
def findings(trial, run_of):
    """A run of 60 trials: ASR falls with the ratio, CA with the samples, and the threshold does nothing."""
    rng = np.random.default_rng(5)
    records = []
    for number in range(60):
        ratio, samples = float(rng.choice([0.01, 0.03, 0.1, 0.3])), int(rng.integers(16, 129))
        changes = {RATIO: ratio, SAMPLES: samples, THRESHOLD: float(rng.choice([0.1, 0.2, 0.3]))}
        asr, ca = 0.6 - 0.15 * np.log10(ratio / 0.001) + rng.normal(0, 0.01), 0.9 - samples / 1000
        records.append(trial(number, asr=round(float(asr), 3), ca=round(ca, 3), changes=changes, asked_as="search/1"))
    return find(run_of(*records, space=(RATIO, SAMPLES, THRESHOLD)))


@pytest.fixture(scope="module")
def searched(findings):
    return find_importances(findings)


def test_a_process_of_its_own_finds_the_same_wherever_it_is_called_from(findings, searched, monkeypatch, tmp_path):
    (tmp_path / "optuna.py").write_text("raise SystemExit('code of the folder was run')")
    monkeypatch.chdir(tmp_path)
    importance._LAST.clear()
    with closing(EvaluatorProcess()) as process:
        wait = begin_importances(findings, process)
        monkeypatch.setattr(importance, "weigh", None)  # not here
        assert wait() == searched
    assert find_importances(findings) == searched  # known by now


@pytest.mark.parametrize("program", ["/bin/false", "/bin/true", "/none"])
def test_where_there_can_be_no_such_process_they_are_worked_out_here(findings, searched, monkeypatch, program):
    importance._LAST.clear()
    monkeypatch.setattr(sys, "executable", program)
    with closing(EvaluatorProcess()) as process:
        assert begin_importances(findings, process)() == searched


def test_the_process_ends_at_once_where_there_is_nothing_to_weigh(trial, run_of):
    process = EvaluatorProcess()
    assert not begin_importances(find(run_of(trial(0, asr=0.1, ca=0.8))), process)()
    assert process.ended


def test_the_knob_that_moves_a_rate_has_most_of_its_variance(searched):
    knobs = {knob.path: knob for knob in searched.knobs}
    assert knobs[RATIO].asr.variance > 0.8
    assert knobs[SAMPLES].asr.variance < 0.1
    assert knobs[SAMPLES].ca.variance > 0.8
    assert knobs[RATIO].ca.variance < 0.1
    assert searched.knobs[-1].path == THRESHOLD


def test_low_asr_and_high_ca_are_good(searched):
    knobs = {knob.path: knob for knob in searched.knobs}
    assert max(knobs.values(), key=lambda knob: knob.asr.among_best).path == RATIO
    # Were high CA taken for bad, few samples would not set the best trials apart from the rest.
    assert max(knobs.values(), key=lambda knob: knob.ca.among_best).path == SAMPLES
    assert sum(knob.asr.among_best for knob in knobs.values()) == pytest.approx(1)


def test_the_trend_says_which_way_a_rate_goes(searched):
    knobs = {knob.path: knob for knob in searched.knobs}
    assert knobs[RATIO].asr.trend < -0.9
    assert knobs[SAMPLES].ca.trend == pytest.approx(-1)


def test_caveats_are_told(searched):
    told = " ".join(importance_notes(searched))
    assert "no effects can be told" in told
    assert "So few say little" not in told
    assert "The best are 6 of 60 configurations." in told


def test_the_table_has_a_line_for_each_knob(searched):
    table = importances_table(searched)
    assert set(table["setting"]) == {RATIO, SAMPLES, THRESHOLD}
    assert {"asr_variance", "asr_among_best", "ca_trend", "front_among_best"} <= set(table)


def test_words_are_knobs_too(trial, run_of):
    rng = np.random.default_rng(1)
    records = []
    for number in range(24):
        kind, samples = ("token", "caption")[number % 2], int(rng.integers(16, 129))
        changes = {"defense.unlearn_scope": kind, SAMPLES: samples}
        records.append(
            trial(number, asr=0.1 if kind == "token" else 0.5, ca=round(0.8 + samples / 1000, 3), changes=changes)
        )
    run = run_of(*records, space=("defense.unlearn_scope", SAMPLES))
    knobs = {knob.path: knob for knob in find_importances(find(run)).knobs}
    assert knobs["defense.unlearn_scope"].asr.variance > 0.8
    assert knobs["defense.unlearn_scope"].asr.trend is None


@pytest.mark.parametrize("number", [3, 40])
def test_few_trials_and_one_factor_at_a_time_have_no_importances(trial, run_of, number):
    records = [trial(at, asr=0.1, ca=0.8, changes={(RATIO, SAMPLES)[at % 2]: at + 1}) for at in range(number)]
    assert not find_importances(find(run_of(*records)))
