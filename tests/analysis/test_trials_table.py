import pandas as pd

from analysis.findings import find
from analysis.tables import configurations_table, trials_table

RATIO, SAMPLES, THRESHOLD = "defense.suspicious_ratio", "defense.unlearn_samples", "defense.token_threshold"


def test_there_is_one_row_a_trial_in_order(run_of, trial):
    table = trials_table(run_of(trial(0), trial(1, state="FAILED", reason="too hot", seed=4)))
    assert list(table["trial"]) == ["trial-0", "trial-1"]
    assert list(table["state"]) == ["DONE", "FAILED"]
    assert table.loc[1, "reason"] == "too hot"
    assert table.loc[1, "seed"] == 4


def test_changed_settings_are_columns_filled_from_the_base_elsewhere(run_of, trial):
    table = trials_table(run_of(trial(0), trial(1, changes={THRESHOLD: 0.3})))
    assert list(table[THRESHOLD]) == [0.1, 0.3]
    assert list(table[SAMPLES]) == [64, 64]


def test_a_setting_that_a_defense_does_not_have_is_missing(run_of, trial):
    none = {"victim": {}, "defense": {"kind": "none"}}
    table = trials_table(run_of(trial(0), trial(1, config=none, changes={"defense.kind": "none"})))
    assert list(table["defense.kind"]) == ["ubt", "none"]
    assert pd.isna(table.loc[1, RATIO])


def test_lists_and_objects_are_told_as_json(run_of, trial):
    table = trials_table(run_of(trial(0, changes={SAMPLES: [1, 2], RATIO: {"from": 0.1}})))
    assert table.loc[0, SAMPLES] == "[1, 2]"
    assert table.loc[0, RATIO] == '{"from": 0.1}'


def test_parts_with_a_kind_are_told_in_words(run_of, trial):
    detectors = [{"kind": "lof"}, {"kind": "knn", "neighbours": 16}]
    table = trials_table(run_of(*(trial(n, changes={"defense.detector": d}) for n, d in enumerate(detectors))))
    assert list(table["defense.detector"]) == ["lof", "knn (neighbours 16)"]


def test_rates_stand_with_their_intervals_and_failed_trials_have_none(run_of, trial):
    table = trials_table(run_of(trial(0, asr=0.1, ca=0.8), trial(1, state="FAILED")))
    row = table.loc[0]
    assert (row["val_asr"], row["val_ca"], row["test_asr"], row["poisoned_val_asr"]) == (0.1, 0.8, 0.11, 0.9)
    assert row["val_asr_low"] < 0.1 < row["val_asr_high"]
    assert pd.isna(table.loc[1, "val_asr"])
    assert table.loc[1, "poisoned_test_ca"] == 0.83


def test_metrics_and_facts_of_stages_are_columns(run_of, trial):
    table = trials_table(run_of(trial(0), trial(1, state="FAILED")))
    row = table.loc[0]
    assert (row["suspect.recall"], row["unlearn.loss"]) == (0.5, 0.1)
    assert (row["suspect.seconds"], row["suspect.reused"], row["unlearn.reused"]) == (10, True, False)
    assert (row["stages_computed"], row["stages_reused"]) == (1, 1)
    assert pd.isna(table.loc[1, "suspect.recall"])


def test_the_table_survives_a_csv_file(run_of, trial, tmp_path):
    table = trials_table(run_of(trial(0), trial(1, reason='a "quoted", reason\nof two lines', state="FAILED")))
    table.to_csv(tmp_path / "trials.csv", index=False)
    again = pd.read_csv(tmp_path / "trials.csv")
    assert list(again.columns) == list(table.columns)
    assert again.loc[1, "reason"] == 'a "quoted", reason\nof two lines'


def test_the_front_as_a_table_has_test_rates_beside_validation(run_of, trial):
    findings = find(run_of(trial(0, asr=0.2), trial(1, asr=0.1, changes={SAMPLES: 8})))
    table = configurations_table(findings, findings.front)
    assert list(table["trial"]) == ["trial-1"]
    assert list(table["chosen"]) == [True]
    row = table.loc[0]
    assert (row["val_asr"], row["test_asr"], row[SAMPLES], row["seeds_done"]) == (0.1, 0.11, 8, 1)
    assert row["val_asr_low"] < 0.1 < row["val_asr_high"]
