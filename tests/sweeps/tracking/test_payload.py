import pytest

from sweeps.tracking import payload
from sweeps.tracking.payload import NOTE
from ubt.trials.failures import Failure
from ubt.trials.labels import ComparisonCell, TrialLabel
from ubt.trials.rates import Rates
from ubt.trials.record import EpochRecord, StageRecord, State

BEGAN_MS = 1767323045000  # 2026-01-02 03:04:05 UTC, as toy records say


def test_all_of_a_configuration_is_parameters_in_text(make_record) -> None:
    record = make_record(
        0, config={"victim": {"seed": 1, "checkpoint": None}, "defense": {"layers": [1, 2], "on": True}}
    )
    assert payload.of_trial(record).params == {
        "victim.seed": "1",
        "victim.checkpoint": "null",
        "defense.layers": "[1, 2]",
        "defense.on": "true",
    }


def points(found: payload.Payload, name: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in found.curves if point.name == name]


def test_rates_by_epoch_begin_with_the_poisoned_model_and_count_on_over_stages(make_record) -> None:
    stages = make_record(0, 2).stages
    again = StageRecord(stage="finetune", key="c", reused=False, seconds=1.0, epochs=stages[1].epochs[:1])
    found = payload.of_trial(make_record(0, stages=(*stages, again)))
    assert points(found, "val/asr") == [(0, 1.0), (1, 1.0), (2, 0.5), (3, 1.0)]
    assert [step for step, _ in points(found, "val/ca")] == [0, 1, 2, 3]


def test_points_have_the_time_of_their_stage(make_record, rates) -> None:
    epochs = tuple(EpochRecord(epoch=n, seconds=2.5, loss=1.0 / n, val=rates(0.9, 0.1)) for n in (1, 2))
    stage = {"stage": "unlearn", "key": "u", "reused": False, "seconds": 9.0, "epochs": epochs}
    later = StageRecord(**stage, started_at="2026-01-02T04:00:00+00:00")
    found = payload.of_trial(make_record(0, stages=(later,)))
    of = {(point.name, point.step): point.at_ms for point in found.curves}
    assert of["val/asr", 0] == BEGAN_MS
    assert of["val/asr", 2] == of["loss/unlearn", 2] == BEGAN_MS + 55 * 60_000 + 55_000 + 5000
    unknown = payload.of_trial(make_record(0, stages=(StageRecord(**stage),)))
    assert [p.at_ms for p in unknown.curves if p.name == "val/ca"] == [BEGAN_MS, BEGAN_MS + 2500, BEGAN_MS + 5000]


def test_losses_are_curves_by_the_epoch_of_their_stage(make_record) -> None:
    epochs = tuple(EpochRecord(epoch=epoch, seconds=1.0, loss=1.0 / epoch) for epoch in (1, 2))
    bare = StageRecord(stage="overfit", key="c", reused=False, seconds=1.0, epochs=epochs)
    found = payload.of_trial(make_record(0, stages=(bare,)))
    assert points(found, "loss/overfit") == [(1, 1.0), (2, 0.5)]
    assert [step for step, _ in points(found, "val/ca")] == [0], "nothing was judged but the poisoned model"


def test_epochs_that_were_judged_on_a_part_have_a_curve_of_their_own(make_record, rates) -> None:
    part = rates(0.5, 0.5).model_copy(update={"subset": "first 16"})
    epochs = tuple(EpochRecord(epoch=epoch, seconds=1.0, val=part) for epoch in (1, 2))
    stage = StageRecord(stage="unlearn", key="u", reused=False, seconds=1.0, epochs=epochs)
    found = payload.of_trial(make_record(0, stages=(stage,), state=State.DONE))
    assert points(found, "val_part/asr") == [(1, 0.5), (2, 0.5)]
    assert points(found, "val/asr") == [(0, 1.0), (2, 0.25)], "the end is judged on all of it"


def test_the_end_of_a_defense_without_epochs_is_step_1(make_record) -> None:
    assert points(payload.of_trial(make_record(0, stages=(), state=State.DONE)), "val/asr") == [(0, 1.0), (1, 0.25)]


def test_metrics_are_in_groups_with_intervals_beside(make_record) -> None:
    metrics = payload.of_trial(make_record(0, state=State.DONE)).metrics
    assert (metrics["test/asr"], metrics["test/ca"]) == (0.5, 0.7)
    assert (metrics["test/ca_low"], metrics["test/ca_high"], metrics["val/asr_high"]) == (0.0, 1.0, 1.0)
    assert (metrics["chain/poison_images"], metrics["time/unlearn_s"], metrics["time/trial_s"]) == (12.0, 2.0, 5.0)
    assert metrics["poisoned/val_asr"] == 1.0
    assert not {"poisoned/test_asr", "val/asr"} & set(metrics)
    assert not any("." in name for name in metrics), "MLflow groups by slashes alone"


def test_numbers_that_are_not_finite_are_left_out(make_record) -> None:
    stage = StageRecord.model_construct(
        stage="x",
        key="x",
        reused=False,
        seconds=1.0,
        diagnostics={"bad": float("nan"), "worse": float("inf"), "good@1": 1.0},
        epochs=(EpochRecord.model_construct(epoch=1, seconds=1.0, loss=float("nan")),),
    )
    found = payload.of_trial(make_record(0).model_copy(update={"stages": (stage,)}))
    assert [name for name in found.metrics if name.startswith("chain/")] == ["chain/x_good_1"]
    assert points(found, "loss/x") == []


@pytest.mark.parametrize(
    ("state", "status"),
    [
        (State.RUNNING, "RUNNING"),
        (State.DONE, "FINISHED"),
        (State.PRUNED, "KILLED"),
        (State.FAILED, "FAILED"),
        (State.INTERRUPTED, "KILLED"),
    ],
)
def test_states_become_mlflow_s_statuses(make_record, state: State, status: str) -> None:
    found = payload.of_trial(make_record(0, state=state))
    assert (found.status, found.tags["pruned"]) == (status, "true" if state is State.PRUNED else "")


def test_a_run_s_name_says_what_differs(make_record) -> None:
    assert payload.run_name_of(make_record(0, trial="t0000", changes={})) == "t0000 base"
    changes = {"defense.suspicious_ratio": 0.1, "defense.unlearn_samples": 128}
    named = payload.run_name_of(make_record(0, trial="t0005-s1", changes=changes))
    assert named == "t0005-s1 suspicious_ratio=0.1 unlearn_samples=128"
    without = TrialLabel(component="no-overfit", words="without overfitting")
    assert payload.run_name_of(make_record(0, trial="t0002", label=without)) == "t0002 without overfitting"
    cell = TrialLabel(cell=ComparisonCell(phase="table", defense="ubt", attack="badnets"))
    assert payload.run_name_of(make_record(0, trial="t0003", label=cell)) == "t0003 table:ubt/badnets"
    many = {f"defense.setting_{number}": number for number in range(40)}
    assert len(payload.run_name_of(make_record(0, changes=many))) == 120


@pytest.mark.parametrize(("trial", "configuration"), [("t0005", "t0005"), ("t0005-s12", "t0005"), ("a-s", "a-s")])
def test_every_seed_of_a_configuration_has_its_name(make_record, trial: str, configuration: str) -> None:
    assert payload.of_trial(make_record(0, trial=trial)).tags["configuration"] == configuration


def test_a_failure_s_note_says_why_and_how_far_it_got(make_record) -> None:
    failed = {"state": State.FAILED, "reason": "the loss is not finite\n```evil", "failure": Failure.METHOD}
    note = payload.of_trial(make_record(0, **failed)).tags[NOTE]
    assert note.startswith("**Failed by the method")
    assert "the loss is not finite" in note
    assert note.count("```") == 2, "what a library says does not end the block"
    assert "`unlearn`" in note
    assert "resume" not in note
    lost = payload.of_trial(make_record(0, state=State.FAILED, reason="a worker died", failure="fault", lost=True))
    assert "a resume runs the trial again" in lost.tags[NOTE]


@pytest.mark.parametrize("state", [State.RUNNING, State.DONE])
def test_what_runs_or_is_done_has_no_note(make_record, state: State) -> None:
    assert payload.of_trial(make_record(0, state=state)).tags[NOTE] == ""


def test_long_texts_are_cut() -> None:
    assert len(payload.text_of("x" * 10_000)) == 5000


def test_a_rate_that_is_not_known_is_left_out(make_record) -> None:
    clean = Rates(ca=0.8, ca_images=100, ca_low=0.7, ca_high=0.9)
    epochs = (EpochRecord(epoch=1, seconds=1, val=clean),)
    stage = StageRecord(stage="unlearn", key="u", reused=False, seconds=1, epochs=epochs)
    record = make_record(0, state=State.DONE, stages=(stage,), val=clean, test=clean, poisoned_val=clean)
    found = payload.of_trial(record)
    assert [point.name for point in found.curves] == ["val/ca", "val/ca"]
    assert found.metrics["test/ca"] == 0.8
    assert not any("asr" in name for name in found.metrics)
