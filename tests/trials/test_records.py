import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ubt.common.errors import UserError
from ubt.trials.record import (
    EpochRecord,
    Rates,
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
        spoiled({"version": 3}),
        spoiled({"version": 0}),
        record(1).model_dump_json().encode()[:-20],
    ],
)
def test_what_is_no_record_of_this_version_is_refused_with_its_name_and_a_way_out(tmp_path, content):
    path = tmp_path / "t1.json"
    path.write_bytes(content)
    for read in (lambda: read_record(path), lambda: read_records(tmp_path)):
        with pytest.raises(UserError) as caught:
            read()
        (problem,) = caught.value.problems
        assert problem.where == str(path)
        assert "remove the file" in problem.advice


def test_numbers_that_json_cannot_hold_never_enter_a_record():
    with pytest.raises(ValidationError):
        EpochRecord(epoch=1, seconds=1.0, loss=math.nan)
    with pytest.raises(ValidationError):
        StageRecord(stage="detect_clean", key="a", reused=False, seconds=1.0, diagnostics={"auroc": math.nan})


def test_only_a_running_trial_has_not_ended():
    assert [state for state in State if not state.ended] == [State.RUNNING]


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


def test_a_stages_own_work_leaves_out_the_judging_of_its_epochs_also_in_older_records():
    judged = EpochRecord(epoch=1, seconds=2.0, val=rates())
    unlearn = StageRecord(stage="unlearn", key="a", reused=False, seconds=5.0, epochs=(judged, judged))
    overfit = StageRecord(
        stage="overfit", key="b", reused=False, seconds=5.0, epochs=(EpochRecord(epoch=1, seconds=2.0),)
    )
    assert (unlearn.work_seconds, overfit.work_seconds) == (4.0, 5.0)
    told = unlearn.model_copy(update={"own_seconds": 4.5})
    assert told.work_seconds == 4.5
