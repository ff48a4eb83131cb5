import json
import math
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ubt.common.errors import UserError
from ubt.config.base import descriptions
from ubt.defenses.detectors import CleanDetector
from ubt.trials.config import TrialConfig
from ubt.trials.gates import GateOutcome
from ubt.trials.labels import ComparisonCell, TrialLabel
from ubt.trials.migration import migrated_record
from ubt.trials.rates import PerClass, Rates
from ubt.trials.record import (
    RECORD_VERSION,
    Attempt,
    DamagedRecord,
    EpochRecord,
    StageRecord,
    State,
    TrialRecord,
    read_record,
    read_records,
    write_record,
)


def record(number=0, **fields):
    plain = {"study": "toy", "trial": f"t{number}", "number": number, "seed": 0, "config": {}, "changes": {}}
    return TrialRecord.model_validate({**plain, "state": "DONE", **fields})


def rates(ca=0.5):
    intervals = {"ca_low": 0, "ca_high": 1, "asr_low": 0, "asr_high": 1}
    return Rates(ca=ca, asr=0, ca_images=2, asr_images=1, triggered_accuracy=0, **intervals)


@pytest.mark.parametrize("missing", ["asr", "asr_images", "asr_low", "asr_high", "triggered_accuracy"])
def test_what_is_measured_on_triggered_images_is_there_together_or_not_at_all(missing):
    with pytest.raises(ValidationError, match="measured together"):
        Rates.model_validate({**rates().as_json(), missing: None})
    clean = Rates(ca=0.5, ca_images=2, ca_low=0, ca_high=1)
    assert (clean.asr, clean.attacked, str(clean)) == (None, None, "ASR – CA 0.500")
    assert (rates().attacked, str(rates())) == ((0, 0, 1), "ASR 0.000 CA 0.500")


FLOATS = st.floats(allow_nan=False, allow_infinity=False)


@given(FLOATS, st.text(), st.sampled_from(State))
def test_a_record_survives_the_trip_to_the_disk(tmp_path_factory, number, text, state):
    epoch = EpochRecord(epoch=1, seconds=number, loss=number, val=rates(number))
    stage = StageRecord(
        stage="unlearn", key="a", reused=True, seconds=number, diagnostics={text: number}, epochs=(epoch,)
    )
    written = record(
        state=state,
        stages=(stage, stage),
        config={text: [number, None]},
        changes={text: number},
        reason=text,
        test=rates(),
    )
    assert read_record(write_record(tmp_path_factory.getbasetemp() / "round-trip", written)) == written


def test_a_record_is_one_json_document_named_after_its_trial(tmp_path):
    path = write_record(tmp_path / "records", record(3))
    assert path == tmp_path / "records" / "t3.json"
    assert json.loads(path.read_text())["number"] == 3
    assert path.read_text().endswith("}\n")


def test_records_come_by_number_whatever_their_names(tmp_path):
    for number, name in ((10, "b"), (9, "z"), (2, "a"), (0, "k")):
        write_record(tmp_path, record(number, trial=name))
    assert [each.number for each in read_records(tmp_path)] == [0, 2, 9, 10]


def test_a_record_that_is_being_written_is_not_read(tmp_path):
    write_record(tmp_path, record(0))
    (tmp_path / ".t1.json.123.456").write_text('{"version":')
    assert [each.trial for each in read_records(tmp_path)] == ["t0"]


def test_a_folder_that_is_not_there_holds_no_records(tmp_path):
    assert read_records(tmp_path / "records") == []


def spoiled(change):
    tree = json.loads(record(1).model_dump_json())
    tree.update(change)
    return json.dumps(tree).encode()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        spoiled({"state": "LOST"}),
        spoiled({"unheard_of": 1}),
        spoiled({"version": 0}),
        record(1).model_dump_json().encode()[:-20],
    ],
)
def test_what_is_no_record_of_this_version_is_refused_with_its_name_and_a_way_out(tmp_path, content):
    path = tmp_path / "t1.json"
    path.write_bytes(content)
    for read in (lambda: read_record(path), lambda: read_records(tmp_path)):
        with pytest.raises(DamagedRecord) as caught:
            read()
        (problem,) = caught.value.problems
        assert problem.where == str(path)
        assert "--resume" in problem.advice


@pytest.mark.parametrize(
    "change", [{"version": 4}, {"versions": {"ubt-sweeper": "99.0"}, "unheard_of": 1}], ids=["schema", "field"]
)
def test_what_a_later_version_wrote_is_not_damaged(tmp_path, change):
    (tmp_path / "t1.json").write_bytes(spoiled(change))
    with pytest.raises(UserError, match="record") as caught:
        read_record(tmp_path / "t1.json")
    assert not isinstance(caught.value, DamagedRecord)
    assert "the version of ubt that wrote it" in caught.value.problems[0].advice


def test_the_record_of_a_trial_that_has_ended_outlasts_a_loss_of_power(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda opened: synced.append(Path(f"/proc/self/fd/{opened}").readlink()))
    write_record(tmp_path, record(state="RUNNING"))
    assert not synced
    write_record(tmp_path, record(state="DONE"))
    assert [path.name[:9] for path in synced] == [".t0.json.", tmp_path.name[:9]]


def test_numbers_that_json_cannot_hold_never_enter_a_record():
    with pytest.raises(ValidationError):
        EpochRecord(epoch=1, seconds=1.0, loss=math.nan)
    with pytest.raises(ValidationError):
        StageRecord(stage="detect_clean", key="a", reused=False, seconds=1.0, diagnostics={"auroc": math.nan})


def test_only_a_running_trial_has_not_ended():
    assert [state for state in State if not state.ended] == [State.RUNNING, State.INTERRUPTED]


def test_evaluated_epochs_are_listed_with_their_stage_in_order():
    overfit = StageRecord(stage="overfit", key="a", reused=True, seconds=1, epochs=(EpochRecord(epoch=1, seconds=1),))
    unlearn = StageRecord(
        stage="unlearn",
        key="b",
        reused=False,
        seconds=1,
        epochs=tuple(EpochRecord(epoch=number, seconds=1, val=rates()) for number in (1, 2)),
    )
    found = record(stages=(overfit, unlearn)).epochs
    assert [(stage, epoch.epoch) for stage, epoch in found] == [("unlearn", 1), ("unlearn", 2)]


def test_a_stages_own_work_leaves_out_the_evaluation_of_its_epochs_also_in_older_records():
    evaluated = EpochRecord(epoch=1, seconds=2.0, val=rates())
    unlearn = StageRecord(stage="unlearn", key="a", reused=False, seconds=5.0, epochs=(evaluated, evaluated))
    overfit = StageRecord(
        stage="overfit", key="b", reused=False, seconds=5.0, epochs=(EpochRecord(epoch=1, seconds=2.0),)
    )
    assert (unlearn.work_seconds, overfit.work_seconds) == (4.0, 5.0)
    measured = unlearn.model_copy(update={"own_seconds": 4.5})
    assert measured.work_seconds == 4.5


def test_a_record_of_a_later_version_is_told_in_one_sentence(tmp_path):
    later = tmp_path / "t0.json"
    later.write_text('{"version": 9, "trial": {"name": "t0"}, "cost": 3}')
    with pytest.raises(UserError) as caught:
        read_record(later)
    (problem,) = caught.value.problems
    assert (problem.where, problem.given) == (str(later), 9)
    assert problem.message == "is no record of version 1 to 3"
    assert "the version of ubt that wrote it" in problem.advice


# Records of version 1


FORMER = Path(__file__).parent / "data" / "record_of_version_1.json"
"""As version 0.1 wrote it, but for all epochs except each stage's last."""


def former(**fields):
    """Return a record's JSON as version 1 wrote it."""
    tree = json.loads(record().model_dump_json())
    return {**tree, "version": 1, "label": "", "stages": [], "attempts": 1, **fields}


def former_stage(stage, **fields):
    return {"stage": stage, "key": "a", "reused": False, "seconds": 1.0, "metrics": {}, "epochs": [], **fields}


def read_back(tmp_path, document):
    path = tmp_path / "t0.json"
    path.write_text(json.dumps(document))
    return read_record(path)


def test_a_record_that_version_0_1_wrote_is_read():
    found, written = read_record(FORMER), json.loads(FORMER.read_text())
    assert found.version == RECORD_VERSION == 3
    assert [stage.stage for stage in found.stages][2:5] == ["implant", "detect_clean", "suspect"]
    assert [stage.diagnostics for stage in found.stages] == [stage["metrics"] for stage in written["stages"]]
    assert [stage.key for stage in found.stages] == [stage["key"] for stage in written["stages"]]
    assert found.test.model_dump(mode="json", include=set(written["test"])) == written["test"]
    measured = ("val", "test", "poisoned_val", "poisoned_test")
    assert [getattr(found, name).split for name in measured] == ["val", "test"] * 2
    assert {epoch.val.split for _, epoch in found.epochs} == {"val"}
    assert [attempt.started_at for attempt in found.attempts] == [written["started_at"]]
    assert found.changes == written["changes"]
    assert not found.label
    trial = TrialConfig.model_validate(found.config)
    assert trial.defense.detector == CleanDetector()
    assert trial.metrics == ()
    assert trial.as_json() == found.config, "the same settings as this version writes them"


def test_a_record_of_this_version_is_read_as_it_is():
    document = json.loads(record(stages=()).model_dump_json())
    assert migrated_record(document) is document


def test_a_migrated_record_is_written_as_this_version_writes_it(tmp_path):
    found = read_record(FORMER)
    assert json.loads(write_record(tmp_path, found).read_text())["version"] == RECORD_VERSION
    assert read_record(tmp_path / f"{found.trial}.json") == found


@pytest.mark.parametrize(
    ("detector", "before", "after"),
    [
        ("clean", "score", "detect_clean"),
        ("gain", "gain", "detect_gain"),
        ("poisoned", "rescore", "detect_poisoned"),
        ("knn", "density", "detect_knn"),
        ("lof", "density", "detect_lof"),
        ("lof", "overfit", "overfit"),
    ],
)
def test_stages_have_their_names_of_now(tmp_path, detector, before, after):
    config = {"defense": {"kind": "ubt", "detector": detector}}
    found = read_back(tmp_path, former(config=config, stages=[former_stage(before), former_stage("suspect")]))
    assert [stage.stage for stage in found.stages] == [after, "suspect"]


def test_what_was_called_metrics_are_diagnostics_and_what_was_called_measures_are_metrics(tmp_path):
    stages = [former_stage("retrieval", metrics={"image_to_text_recall_1": 0.5})]
    asked = [{"kind": "retrieval", "pairs": 30}]
    found = read_back(
        tmp_path, former(config={"measures": asked}, changes={"measures": asked}, stages=stages, label="")
    )
    assert found.stages[0].diagnostics == {"image_to_text_recall_1": 0.5}
    assert found.config == found.changes == {"metrics": asked}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"detector": "clean", "neighbours": 16}, {"detector": {"kind": "clean"}}),
        ({"detector": "gain"}, {"detector": {"kind": "gain"}}),
        ({"detector": "knn", "neighbours": 5}, {"detector": {"kind": "knn", "neighbours": 5}}),
        ({"detector": "lof", "neighbours": 7}, {"detector": {"kind": "lof", "neighbours": 7}}),
        ({"detector": "lof"}, {"detector": {"kind": "lof"}}),
        ({"suspicious_ratio": 0.1}, {"suspicious_ratio": 0.1}),
    ],
)
def test_a_detector_is_a_part_of_its_own_with_its_neighbours(tmp_path, before, after):
    found = read_back(
        tmp_path,
        former(config={"defense": {"kind": "ubt", **before}}, changes={"defense": {"kind": "ubt", **before}}),
    )
    assert found.config == found.changes == {"defense": {"kind": "ubt", **after}}
    assert TrialConfig.model_validate(found.config)


def test_changes_of_the_detector_are_read_as_changes_of_that_part(tmp_path):
    changes = {"defense.detector": "knn", "defense.neighbours": 5, "defense.suspicious_ratio": 0.1, "defense.kind": "x"}
    assert read_back(
        tmp_path, former(config={"defense": {"kind": "ubt", "detector": "knn"}}, changes=changes)
    ).changes == {
        "defense.detector": {"kind": "knn"},
        "defense.detector.neighbours": 5,
        "defense.suspicious_ratio": 0.1,
        "defense.kind": "x",
    }


def test_a_change_of_neighbours_that_the_detector_did_not_look_at_is_left_out(tmp_path):
    former_config = {"defense": {"kind": "ubt", "detector": "clean", "neighbours": 5}}
    assert not read_back(tmp_path, former(config=former_config, changes={"defense.neighbours": 5})).changes


@pytest.mark.parametrize("kind", ["abl", "finetune", "none"])
def test_the_settings_of_other_defenses_stay_as_they_are(tmp_path, kind):
    assert read_back(tmp_path, former(config={"defense": {"kind": kind}})).config == {"defense": {"kind": kind}}


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("", TrialLabel()),
        ("no-overfit", TrialLabel(component="no-overfit")),
        ("base", TrialLabel(component="base")),
        ("table:ubt/badnets", TrialLabel(cell=ComparisonCell(phase="table", defense="ubt", attack="badnets"))),
        (
            "search:ubt/badnets (its search failed)",
            TrialLabel(cell=ComparisonCell(phase="search", defense="ubt", attack="badnets", note="its search failed")),
        ),
    ],
)
def test_a_label_that_was_text_is_structured(tmp_path, text, label):
    assert read_back(tmp_path, former(label=text)).label == label


@pytest.mark.parametrize(
    "wrong",
    [
        {"stages": [{}]},
        {"stages": [1]},
        {"stages": 1},
        {"config": [1]},
        {"changes": "none"},
        {"config": {"defense": ["ubt"]}, "state": "LOST"},
        {"unheard_of": 1},
    ],
)
def test_what_is_no_record_of_version_1_is_refused_with_its_name(tmp_path, wrong):
    with pytest.raises(UserError) as caught:
        read_back(tmp_path, former(**wrong))
    (problem,) = caught.value.problems
    assert problem.where == str(tmp_path / "t0.json")
    assert "remove the file" in problem.advice


# Records of version 2


def test_attempts_that_were_counted_are_told(tmp_path):
    counted = {**json.loads(record(started_at="2026-01-01T00:00:00+00:00").model_dump_json()), "version": 2}
    found = read_back(tmp_path, {**counted, "attempts": 3})
    assert [attempt.ended_by for attempt in found.attempts] == ["its worker or node died"] * 2 + [""]
    assert [attempt.started_at for attempt in found.attempts] == ["", "", "2026-01-01T00:00:00+00:00"]


def test_rates_of_version_2_name_the_split_that_they_stood_under(tmp_path):
    plain = {name: value for name, value in rates().as_json().items() if name not in {"split", "subset", "per_class"}}
    epoch = {"epoch": 1, "seconds": 1.0, "val": plain}
    stage = {"stage": "unlearn", "key": "a", "reused": False, "seconds": 1.0, "epochs": [epoch, {**epoch, "val": None}]}
    tree = {**json.loads(record().model_dump_json()), "version": 2, "attempts": 1, "stages": [stage]}
    found = read_back(tmp_path, {**tree, "poisoned_test": plain, "val": plain, "test": None})
    assert (found.poisoned_test.split, found.val.split, found.test) == ("test", "val", None)
    assert [epoch.val.split if epoch.val else None for epoch in found.stages[0].epochs] == ["val", None]
    assert not found.val.provisional


# What is large


def test_counts_of_a_thousand_classes_take_a_line_each_and_a_few_kilobytes(tmp_path):
    counts = tuple(range(0, 50_000, 50))
    each = PerClass(images=counts, correct=counts, triggered=counts, hits=counts)
    large = rates().model_copy(update={"per_class": each})
    written = record(val=large, reason="[\n 1,\n 2\n]", config={"a": [1, 2]}, classes=["cat"] * 1000)
    path = write_record(tmp_path, written)
    assert read_record(path) == written
    lines = path.read_text().splitlines()
    assert sum(line.count(",") > 900 for line in lines) == 4
    assert path.stat().st_size < 40_000 + 12_000


def test_what_is_nested_without_end_is_no_record(tmp_path):
    path = tmp_path / "t0000.json"
    path.write_text("[" * 100_000)
    with pytest.raises(UserError, match="is not a trial record"):
        read_record(path)


@pytest.mark.parametrize("model", [TrialRecord, Rates, PerClass, StageRecord, EpochRecord, GateOutcome, Attempt])
def test_every_field_says_what_it_is(model):
    assert {name for name, text in descriptions(model).items() if not text} == set()
