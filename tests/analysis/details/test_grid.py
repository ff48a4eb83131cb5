import json

from analysis.details.detail import details
from analysis.details.grid import grid
from analysis.findings import find
from ubt.trials.record import StageRecord

SAMPLES = "defense.unlearn_samples"


def column(table, title):
    place = next(at for at, one in enumerate(table["columns"]) if one["title"] == title)
    return [row[place] for row in table["rows"]]


def test_rows_are_trials_by_number_with_values_that_can_be_sorted(run_of, trial):
    table = grid(find(run_of(trial(0, asr=0.5), trial(1, asr=0.1, changes={SAMPLES: 8}), trial(2, state="FAILED"))))
    assert column(table, "trial") == ["trial-0", "trial-1", "trial-2"]
    assert column(table, "val ASR") == [0.5, 0.1, None]
    assert column(table, "unlearn_samples") == [64, 8, 64]
    assert table["roles"]["trial-1"] == "chosen"


def test_settings_beyond_the_first_and_diagnostics_are_there_to_be_shown(run_of, trial):
    space = [f"defense.knob{i}" for i in range(9)]
    table = grid(find(run_of(trial(0, changes=dict.fromkeys(space, 1)), space=space)))
    shown = {one["title"]: one["shown"] for one in table["columns"]}
    assert [shown[f"knob{i}"] for i in range(9)] == [True] * 6 + [False] * 3
    assert shown["suspect recall"] is False
    assert column(table, "suspect recall") == [0.5]


def test_columns_that_no_trial_has_a_value_for_are_left_out(run_of, trial):
    assert "node" not in {one["title"] for one in grid(find(run_of(trial(0))))["columns"]}


def test_parts_with_a_kind_are_words(run_of, trial):
    detector = {"kind": "knn", "neighbours": 16}
    table = grid(find(run_of(trial(0, changes={"defense.detector": detector}), space=["defense.detector"])))
    assert column(table, "detector") == ["knn (neighbours 16)"]


def test_a_trial_is_shown_with_rates_epochs_from_the_poisoned_model_on_and_stages(run_of, trial):
    found = details(find(run_of(trial(0, asr=0.1, ca=0.8))))
    (one,) = found["trials"]
    assert one["rates"][found["splits"].index("validation")][::3] == [100, 800]
    assert one["epochs"] == [[900, 500, 100], [820, 700, 800], 0]
    assert [[found["stages"][stage], whole, here] for stage, whole, here in one["stages"]] == [
        ["suspect", 10, 0],
        ["unlearn", 4, 4],
    ]


def test_a_failed_trial_has_its_reason_and_a_further_seed_the_trial_that_stands_for_it(run_of, trial):
    failed, first, second = details(
        find(run_of(trial(0, state="FAILED", reason="x" * 999, changes={SAMPLES: 8}), trial(1), trial(2, seed=1)))
    )["trials"]
    assert failed["reason"] == "x" * 600
    assert "as" not in first
    assert second["as"] == "trial-1"


def test_classes_are_percentages_unless_there_are_too_many(run_of, trial, rates):
    def of(classes):
        counts = {"images": (10,) * classes, "correct": (5,) * classes}
        attack = {"triggered": (0,) + (10,) * (classes - 1), "hits": (0,) + (1,) * (classes - 1)}
        test = rates(0.1, 0.5).model_copy(update={"per_class": counts | attack})
        names = tuple(f"c{i}" for i in range(classes))
        record = trial(0, test=test.model_dump(), classes=names)
        return details(find(run_of(record)))

    few, many = of(3), of(21)
    assert few["trials"][0]["classes"] == [[None, 10.0, 10.0], [50.0, 50.0, 50.0]]
    assert "classes" not in many["trials"][0]
    assert many["classes"] == []
    json.dumps(few, allow_nan=False)


def test_numbers_of_further_metrics_are_shown_at_first_and_diagnostics_are_not(run_of, trial):
    stages = [
        StageRecord(stage="rebound", key="r", reused=False, seconds=1, diagnostics={"asr": 0.4}),
        StageRecord(stage="suspect", key="s", reused=False, seconds=1, diagnostics={"recall": 0.5}),
    ]
    record = trial(0, stages=stages)
    record = record.model_copy(update={"config": {**record.config, "metrics": [{"kind": "rebound"}]}})
    shown = {column["title"]: column["shown"] for column in grid(find(run_of(record)))["columns"]}
    assert shown["rebound asr"]
    assert not shown["suspect recall"]
