"""Defenses over attacks and seeds: which trials count, the numbers of the table, and what it says."""

import numpy as np
import pandas as pd
import pytest

from analysis.comparison import compare, comparison_markdown, comparison_table
from analysis.comparison.compare import seconds_of_defense
from analysis.comparison.output import MEAN, WORST, best_rows, contest, contest_text, heads, notes
from analysis.findings import find
from analysis.formatting import victim_names
from analysis.records import read_run
from ubt.common.statistics import t_interval
from ubt.trials.record import StageRecord, State

ATTACKS = {"badnets": {"kind": "badnets", "target": 3}, "sig": {"kind": "sig", "target": 3}}


@pytest.fixture
def comparison(trial, run_of):
    """The builder of a comparison from trials told as (defense, attack, seed, asr, ca)."""

    def build(*told, label=False, **fields):
        records = []
        for number, (defense, attack, seed, asr, ca) in enumerate(told):
            named = {"label": f"table:{defense}/{attack}"} if label else {}
            changes = {"victim.attack": ATTACKS[attack], "defense": {"kind": defense}}
            records.append(trial(number, asr=asr, ca=ca, seed=seed, changes=changes, **named, **fields))
        return compare(find(run_of(*records)))

    return build


FIELD = (
    ("none", "badnets", 0, 0.89, 0.82),
    ("none", "sig", 0, 0.89, 0.82),
    ("finetune", "badnets", 0, 0.5, 0.81),
    ("finetune", "sig", 0, 0.3, 0.81),
    ("cleanclip", "badnets", 0, 0.2, 0.7),
    ("cleanclip", "sig", 0, 0.1, 0.7),
    ("ubt", "badnets", 0, 0.02, 0.82),
    ("ubt", "sig", 0, 0.04, 0.8),
)
"""On test both rates are 0.01 higher (see the builder of trials); the poisoned model has 0.89 and 0.83."""


def row(comparison, name):
    return next(row for row in comparison.rows if row.name == name)


def test_rows_are_defenses_the_victim_first_the_method_after_its_baselines(comparison):
    found = comparison(*reversed(FIELD), ("oracle", "sig", 0, 0.0, 0.8))
    assert [r.kind for r in found.rows] == ["none", "cleanclip", "finetune", "ubt", "oracle"]
    assert set(found.victims) == {"BadNets", "SIG"}


def test_cells_are_test_rates_averaged_over_seeds_with_students_intervals(comparison):
    rates = [0.1, 0.2, 0.6]
    found = comparison(*FIELD[:1], *(("ubt", "badnets", seed, asr, 0.8) for seed, asr in enumerate(rates)))
    cell = row(found, "UBT").results[0]
    on_test = [rate + 0.01 for rate in rates]
    low, high = t_interval(on_test)
    assert cell.outcome.asr.mean == pytest.approx(np.mean(on_test))
    assert (cell.outcome.asr.low, cell.outcome.asr.high) == pytest.approx((max(0, low), high))
    assert (cell.seeds, cell.tried) == (3, 3)


def test_the_victims_row_is_the_poisoned_model_even_without_trials_of_its_own(comparison):
    found = comparison(*FIELD[2:])
    assert found.victim.kind == "none"
    assert [cell.outcome.asr.mean for cell in found.victim.results] == [0.89, 0.89]
    assert found.victim.results[0].outcome.ca.mean == 0.83


def test_means_and_worst_cases_are_over_attacks(comparison):
    found = row(comparison(*FIELD), "fine-tuning")
    assert found.mean.asr.mean == pytest.approx(0.41)
    assert found.mean.asr.low == pytest.approx(np.mean([cell.outcome.asr.low for cell in found.results]))
    assert found.worst.asr == found.results[0].outcome.asr
    ubt = row(comparison(*FIELD), "UBT")
    assert (ubt.worst.asr.mean, ubt.worst.ca.mean) == (pytest.approx(0.05), pytest.approx(0.81))


def test_an_attack_that_some_defense_was_not_measured_on_is_in_no_mean(comparison):
    found = comparison(*FIELD[:-1])
    assert row(found, "UBT").mean.asr.mean == pytest.approx(0.03)
    assert row(found, "fine-tuning").mean.asr.mean == pytest.approx(0.51)
    assert any("leave out SIG" in note for note in notes(found))


def test_a_defense_that_failed_everywhere_spoils_no_mean(comparison, trial, run_of):
    records = [
        trial(0, asr=0.5, changes={"defense": {"kind": "finetune"}}),
        trial(1, state="FAILED", changes={"defense": {"kind": "par"}}),
        trial(2, asr=0.1),
    ]
    found = compare(find(run_of(*records)))
    assert row(found, "PAR").mean is None
    assert row(found, "UBT").mean.asr.mean == pytest.approx(0.11)


def test_the_headline_holds_the_method_against_the_lowest_asr_and_the_lowest_that_keeps_accuracy(comparison):
    found = contest(comparison(*FIELD))
    assert found.best.name == "CleanCLIP"
    assert found.best.asr_lower == pytest.approx(0.16 - 0.04)
    assert found.best.ca_higher == pytest.approx(0.82 - 0.71)
    assert found.best_kept.name == "fine-tuning"
    assert found.best_kept.asr_lower == pytest.approx(0.41 - 0.04)


def test_the_headline_in_words(comparison):
    text = contest_text(comparison(*FIELD))
    assert text.startswith("On average over 2 attacks, UBT leaves ASR 4.0% at CA 82.0%; the best baseline, CleanCLIP, ")
    assert "(ASR 12.00 points lower, CA 11.00 points higher)" in text
    assert "The best that keeps clean accuracy within 2 points is fine-tuning, ASR 41.0%" in text


def test_the_headline_owns_up_when_the_method_is_behind(comparison):
    text = contest_text(comparison(*FIELD[:6], ("ubt", "badnets", 0, 0.6, 0.6), ("ubt", "sig", 0, 0.6, 0.6)))
    assert "ASR 45.00 points higher, CA 10.00 points lower" in text


def test_oracle_and_victim_are_no_baselines(comparison):
    alone = [("none", "badnets", 0, 0.9, 0.8), ("oracle", "badnets", 0, 0.0, 0.8), ("ubt", "badnets", 0, 0.1, 0.8)]
    assert contest(comparison(*alone)) is None
    assert contest_text(comparison(*alone)) == ""


def test_the_best_of_a_column_keeps_clean_accuracy(comparison):
    found = comparison(*FIELD[:6])
    assert [r.name for r in best_rows(found, 0)] == ["fine-tuning"]
    assert [r.name for r in best_rows(found, None)] == ["fine-tuning"]


def test_a_run_of_one_defense_is_no_comparison(comparison, trial, run_of):
    assert comparison(("ubt", "badnets", 0, 0.1, 0.8), ("ubt", "sig", 0, 0.1, 0.8)) is None
    assert compare(find(run_of(trial(0), trial(1, changes={"defense.unlearn_samples": 8})))) is None


def test_of_several_settings_the_validation_split_chooses(trial, run_of):
    def ubt(number, asr, ca, samples):
        return trial(number, asr=asr, ca=ca, changes={"defense.unlearn_samples": samples})

    records = [
        trial(0, asr=0.5, changes={"defense": {"kind": "finetune"}}),
        *(ubt(1, 0.3, 0.82, 8), ubt(2, 0.1, 0.81, 16), ubt(3, 0.0, 0.5, 32)),
    ]
    found = compare(find(run_of(*records)))
    assert row(found, "UBT").results[0].outcome.asr.mean == pytest.approx(0.11)
    assert row(found, "UBT").choices == 3
    assert any("UBT (3)" in note for note in notes(found))


def test_trials_of_a_search_are_not_in_the_table(trial, run_of):
    def ubt(number, label, asr, samples, **fields):
        return trial(number, asr=asr, label=label, changes={"defense.unlearn_samples": samples}, **fields)

    tuned = trial(0, asr=0.5, label="table:finetune/badnets", changes={"defense": {"kind": "finetune"}})
    searched = [ubt(1, "search:ubt/badnets", 0.0, 8), ubt(2, "search:ubt/badnets", 0.2, 16)]
    running = compare(find(run_of(tuned, *searched)))
    assert row(running, "UBT").results[0].outcome is None
    ended = compare(find(run_of(tuned, *searched, ubt(3, "table:ubt/badnets (search failed)", 0.2, 16, seed=1))))
    assert row(ended, "UBT").results[0].outcome.asr.mean == pytest.approx(0.21)
    assert "UBT: search failed." in notes(ended)
    again = compare(
        find(run_of(tuned, *searched, ubt(3, "table:ubt/badnets", 0.2, 16), ubt(9, "table:ubt/badnets", 0.3, 32)))
    )
    assert row(again, "UBT").results[0].outcome.asr.mean == pytest.approx(0.31), "the newest choice counts"
    assert compare(find(run_of(*searched))) is None


def test_weak_implants_are_told(comparison, trial, run_of):
    def weak(number, seed, **changes):
        return trial(number, state=State.FAILED, fault="WeakImplant", seed=seed, changes=changes)

    changes = {"victim.attack": ATTACKS["sig"]}
    records = [
        trial(0, asr=0.5, changes={"defense": {"kind": "finetune"}}),
        trial(1, asr=0.1),
        *(weak(2, 0, **changes), weak(3, 1, **changes)),
    ]
    found = compare(find(run_of(*records)))
    assert found.weak == (("SIG", (0, 1)),)
    assert any("did not take, and so nothing was defended: SIG (seed 0 and seed 1)" in note for note in notes(found))
    assert row(found, "UBT").mean.asr.mean == pytest.approx(0.11)


def test_seconds_are_those_of_the_defenses_own_stages(trial):
    names = ("pretrain", "poison", "implant", "score", "unlearn", "evaluate", "retrieval")
    stages = tuple(StageRecord(stage=n, key=n, reused=False, seconds=10**i) for i, n in enumerate(names))
    assert seconds_of_defense(trial(0, stages=stages)) == 10**3 + 10**4


def test_victims_of_one_attack_are_told_apart_by_what_differs(trial):
    weaker = {"victim.attack": {"kind": "badnets", "target": 3, "poison_rate": 0.01}}
    names = victim_names([trial(0), trial(1, changes=weaker), trial(2, changes={"victim.attack": ATTACKS["sig"]})])
    assert list(names.values()) == [
        "BadNets (poison_rate\u00a0=\u00a0–)",
        "BadNets (poison_rate\u00a0=\u00a00.01)",
        "SIG",
    ]
    labelled = trial(3, label="table:ubt/few_pairs")
    assert list(victim_names([labelled]).values()) == ["few pairs"]


def test_a_published_attack_is_called_by_its_repository_whatever_the_comparison_names_it(trial):
    published = {"victim.attack": {"kind": "cleanclip_badnets", "target": 3}}
    for name, called in (
        ("cleanclip_badnets", "BadNets (CleanCLIP)"),
        ("badnets", "BadNets (CleanCLIP)"),
        ("mine", "mine"),
    ):
        named = victim_names([trial(0, label=f"table:ubt/{name}", changes=published)])
        assert list(named.values()) == [called]


def test_the_tidy_table_holds_every_cell_and_two_rows_more_a_defense(comparison):
    table = comparison_table(comparison(*FIELD))
    assert list(table["attack"].unique()) == ["BadNets", "SIG", MEAN, WORST]
    assert len(table) == 4 * 4
    cell = table[(table["defense"] == "UBT") & (table["attack"] == "SIG")].iloc[0]
    assert (cell["asr"], cell["ca"], cell["seeds_done"]) == (pytest.approx(0.05), pytest.approx(0.81), 1)
    assert cell["asr_low"] < cell["asr"] < cell["asr_high"]
    assert pd.isna(table[table["attack"] == MEAN]["seeds_done"]).all()


def test_markdown_has_a_line_a_defense_and_what_the_table_says(comparison):
    text = comparison_markdown(comparison(*FIELD))
    lines = text.splitlines()
    assert lines[0] == f"| defense | BadNets | SIG | {MEAN} | {WORST} | time |"
    assert len({line.count("|") for line in lines[:6]}) == 1
    assert lines[5].startswith("| UBT | **3.0** (")
    assert "On average over 2 attacks, UBT" in text
    missing = comparison_markdown(comparison(*FIELD[:-1]))
    assert " – |" in next(line for line in missing.splitlines() if line.startswith("| UBT"))


def test_one_attack_has_no_mean_beside_it(comparison):
    one = [told for told in FIELD if told[1] == "badnets"]
    assert comparison_markdown(comparison(*one)).splitlines()[0] == "| defense | BadNets | time |"
    assert contest_text(comparison(*one)).startswith("On the one attack, UBT")


def test_of_several_rows_of_the_method_the_one_of_its_name_is_held_against_the_baselines(trial, run_of):
    def named(number, name, asr, defense):
        return trial(number, asr=asr, label=f"table:{name}/badnets", changes={"defense": defense})

    records = [
        named(0, "finetune", 0.5, {"kind": "finetune"}),
        named(1, "all_pairs", 0.3, {"kind": "ubt", "overfit_data": "all"}),
        named(3, "ubt-as-published", 0.2, {"kind": "ubt", "detector": "clean"}),
        named(2, "ubt", 0.1, {"kind": "ubt"}),
    ]
    found = compare(find(run_of(*records)))
    assert [r.name for r in found.rows] == ["no defense", "fine-tuning", "all pairs", "UBT", "UBT as published"]
    assert found.method.name == "UBT"
    assert contest(found).best.name == "fine-tuning"


def test_fewer_seeds_than_asked_for_are_told(trial, run_of):
    records = [
        trial(0, asr=0.5, changes={"defense": {"kind": "finetune"}}),
        trial(1, asr=0.1),
        trial(2, state="FAILED", seed=1),
    ]
    assert "[1 of 2 seeds]" in comparison_markdown(compare(find(run_of(*records))))


def test_an_attack_on_which_no_settings_were_chosen_is_marked_unseen(made_run, tmp_path):
    found = compare(find(read_run(made_run(tmp_path / "run", kind="comparison"))))
    assert [found.victims[column] for column in found.unseen] == ["Blended", "SIG"]
    assert heads(found)[:3] == ("BadNets", "Blended (unseen)", "SIG (unseen)")
    assert "Unseen: the settings of no defense were chosen on Blended and SIG." in comparison_markdown(found)
    table = comparison_table(found)
    marked = table[table.unseen.eq(True)]  # of means and worst cases nothing is said
    assert set(marked.attack) == {"Blended", "SIG"}
