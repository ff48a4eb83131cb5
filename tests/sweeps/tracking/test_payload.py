import pytest

from sweeps.tracking import payload
from sweeps.tracking.payload import Point
from ubt.trials.rates import Rates
from ubt.trials.record import EpochRecord, StageRecord, State


def test_searched_and_changed_values_are_parameters_in_text(make_record) -> None:
    record = make_record(0, changes={"defense.layers": [1, 2]})
    searched = ["defense.suspicious_ratio", "defense.no_such_field"]
    assert payload.of_trial(record, searched).params == {
        "defense.suspicious_ratio": "0.1",
        "defense.layers": "[1, 2]",
    }


def test_steps_count_on_over_the_stages_of_a_trial(make_record) -> None:
    stages = make_record(0, 2).stages
    again = StageRecord(stage="finetune", key="c", reused=False, seconds=1.0, epochs=stages[1].epochs[:1])
    curves = payload.of_trial(make_record(0, stages=(*stages, again)), ()).curves
    assert [point for point in curves if point.name == "val/asr"] == [
        Point("val/asr", 1.0, 1),
        Point("val/asr", 0.5, 2),
        Point("val/asr", 1.0, 3),
    ]


def test_epochs_without_a_measurement_have_no_point(make_record) -> None:
    bare = StageRecord(
        stage="overfit",
        key="c",
        reused=False,
        seconds=1.0,
        epochs=(EpochRecord(epoch=1, seconds=1.0, loss=0.1),),
    )
    assert payload.of_trial(make_record(0, stages=(bare,)), ()).curves == ()


def test_stages_and_splits_are_metrics(make_record) -> None:
    metrics = payload.of_trial(make_record(0, state=State.DONE), ()).metrics
    assert metrics["poison.images"] == 12.0
    assert metrics["unlearn.seconds"] == 2.0
    assert metrics["val.asr"] == 0.25
    assert metrics["test.ca"] == 0.7
    assert metrics["poisoned.val.asr"] == 1.0
    assert "poisoned.test.asr" not in metrics


def test_numbers_that_are_not_finite_are_left_out(make_record) -> None:
    stage = StageRecord.model_construct(
        stage="x", seconds=1.0, diagnostics={"bad": float("nan"), "worse": float("inf"), "good@1": 1.0}, epochs=()
    )
    record = make_record(0).model_copy(update={"stages": (stage,)})
    metrics = payload.of_trial(record, ()).metrics
    assert "x.bad" not in metrics
    assert "x.worse" not in metrics
    assert metrics["x.good_1"] == 1.0


@pytest.mark.parametrize(
    ("state", "status"),
    [
        (State.RUNNING, "RUNNING"),
        (State.DONE, "FINISHED"),
        (State.PRUNED, "KILLED"),
        (State.FAILED, "FAILED"),
    ],
)
def test_states_become_mlflow_s_statuses(make_record, state: State, status: str) -> None:
    assert payload.of_trial(make_record(0, state=state), ()).status == status


def test_a_summary_gives_a_metric_for_each_number(make_record) -> None:
    summary = {
        "counts": {"DONE": 3},
        "hypervolume": 0.5,
        "complete": True,
        "name": "toy",
        "none": None,
        "l": [1],
    }
    assert payload.of_summary(summary).metrics == {"counts.DONE": 3.0, "hypervolume": 0.5}


def test_a_study_gives_its_base_configuration_as_parameters() -> None:
    document = {
        "name": "toy",
        "victim": {"model": {"width": 64}},
        "defense": {"kind": "ubt"},
        "space": {"a": [1]},
    }
    assert payload.of_study(document).params == {"victim.model.width": "64", "defense.kind": "ubt"}


def test_long_texts_are_cut() -> None:
    assert len(payload.text_of("x" * 10_000)) == 5000


def test_a_rate_that_is_not_known_is_left_out(make_record) -> None:
    clean = Rates(ca=0.8, ca_images=100, ca_low=0.7, ca_high=0.9)
    stage = StageRecord(
        stage="unlearn", key="u", reused=False, seconds=1, epochs=(EpochRecord(epoch=1, seconds=1, val=clean),)
    )
    found = payload.of_trial(make_record(0, state=State.DONE, stages=(stage,), val=clean, test=clean), ())
    assert [point.name for point in found.curves] == ["val/ca"]
    assert found.metrics["test.ca"] == 0.8
    assert not any(name.startswith(("val.asr", "test.asr", "test.triggered")) for name in found.metrics)
