from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from toy_session import Toy, rates, toy_session

from sweeps.planning.trials import trial_name
from sweeps.scheduling.outcomes import outcome_of
from sweeps.scheduling.retries import LOST_IN_A_ROW, NODE_DIED, WORKER_DIED
from sweeps.search.proposals import Outcome, Proposal
from ubt.common.errors import WeakImplant
from ubt.common.formatting import describe
from ubt.trials.gates import GateOutcome, Gates
from ubt.trials.record import Attempt, EpochRecord, StageRecord, State, TrialRecord, read_records

RATIO, THRESHOLD, EPOCHS = "defense.suspicious_ratio", "defense.token_threshold", "defense.overfit_epochs"
ATTACK, LEAST = "victim.attack.poison_rate", "victim.implant.min_asr"
TWO = [{}, {THRESHOLD: 0.2}]


class Heard(list[TrialRecord]):
    """A listener that remembers."""

    def __init__(self) -> None:
        self.known: list[TrialRecord] = []

    def updated(self, record: TrialRecord) -> None:
        self.append(record)

    def answered(self, record: TrialRecord) -> None:
        self.known.append(record)


def states(toy: Toy) -> dict[str, State]:
    return {record.trial: record.state for record in read_records(toy.records)}


def test_a_record_is_on_disk_at_each_update_before_anybody_hears_of_it(tmp_path: Path) -> None:
    class Reader(Heard):
        def updated(self, record: TrialRecord) -> None:
            on_disk.append(read_records(tmp_path / "records") == [record])

    on_disk: list[bool] = []
    toy = toy_session(tmp_path, [{}], listeners=[Reader()])
    assignment = toy.session.next_assignment()
    for record in (toy.running(assignment, "pretrain"), toy.running(assignment, "implant")):
        toy.session.updated(record)
    toy.session.ended(assignment.trial, toy.done(assignment))
    assert on_disk == [True, True, True]
    assert states(toy) == {"t0000": State.DONE}


def test_every_listener_hears_every_update(tmp_path: Path) -> None:
    heard = [Heard(), Heard()]
    toy = toy_session(tmp_path, TWO, listeners=heard)
    toy.finish_all()
    assert [record.trial for record in heard[0]] == ["t0000", "t0001"]
    assert heard[0] == heard[1]


def test_a_trial_waits_for_shared_work_and_starts_when_a_record_shows_it_done(tmp_path: Path) -> None:
    toy = toy_session(tmp_path, TWO)
    (first,) = toy.start_all()
    toy.session.updated(toy.running(first, "overfit"))
    assert not toy.start_all()
    toy.session.updated(toy.running(first, "attribute"))
    (second,) = toy.start_all()
    assert second.changes == {THRESHOLD: 0.2}


def test_epochs_that_trials_share_are_free_one_epoch_after_they_are_reported(tmp_path: Path) -> None:
    """An epoch is published after its record is sent, so the newest one in a record may not be there yet."""
    layout = [{EPOCHS: 3}, {EPOCHS: 1}]
    toy = toy_session(tmp_path, layout, keep_epochs={"overfit": (1, 3)})
    (long,) = toy.start_all()
    before = toy.stages(long, "suspect")
    overfit = StageRecord(stage="overfit", key="its own", reused=False, seconds=1, complete=False)
    for reached, starts in ((1, []), (2, ["t0001"])):
        epochs = tuple(EpochRecord(epoch=epoch, seconds=1) for epoch in range(1, reached + 1))
        stages = (*before, overfit.model_copy(update={"epochs": epochs}))
        toy.session.updated(long.record(State.RUNNING).model_copy(update={"stages": stages}))
        assert [assignment.trial for assignment in toy.start_all()] == starts


def test_the_search_is_told_asr_and_ca_on_validation(tmp_path: Path) -> None:
    toy = toy_session(tmp_path, [{}])
    assignment = toy.session.next_assignment()
    toy.session.ended(assignment.trial, toy.done(assignment, asr=0.3, ca=0.7))
    assert toy.proposer.told == [(0, Outcome((0.3, 0.7)))]


def test_seeds_are_told_once_as_their_mean(tmp_path: Path) -> None:
    toy = toy_session(tmp_path, [{}], replicates=3)
    started = toy.start_all()
    assert [assignment.trial for assignment in started] == ["t0000-s0", "t0000-s1", "t0000-s2"]
    assert [assignment.seed for assignment in started] == [0, 1, 2]
    for assignment, asr, ca in zip(started, (0.0, 0.25, 0.5), (0.75, 0.5, 1.0), strict=True):
        assert not toy.proposer.told
        toy.session.ended(assignment.trial, toy.done(assignment, asr, ca))
    assert toy.proposer.told == [(0, Outcome((0.25, 0.75)))]


def test_the_search_is_told_how_much_accuracy_was_lost_where_that_is_known(tmp_path: Path) -> None:
    toy = toy_session(tmp_path, [{}], replicates=3)
    for assignment, lost in zip(toy.start_all(), (0.25, 0.5, None), strict=True):
        before = None if lost is None else rates(ca=0.25 + lost)
        toy.session.ended(assignment.trial, toy.done(assignment, 0.5, 0.25).model_copy(update={"poisoned_val": before}))
    assert toy.proposer.told == [(0, Outcome((0.5, 0.25), 0.375))]


def test_one_failed_seed_fails_the_configuration_after_the_others_have_ended(tmp_path: Path) -> None:
    toy = toy_session(tmp_path, [{}], replicates=2)
    good, bad = toy.start_all()
    toy.session.ended(bad.trial, toy.failed(bad, "implant"))
    assert not toy.proposer.told
    toy.session.ended(good.trial, toy.done(good))
    assert toy.proposer.told == [(0, Outcome(None, ruled_out=True))]


@pytest.mark.parametrize("state", [State.DONE, State.FAILED, State.PRUNED])
def test_a_trial_that_ended_before_is_answered_from_its_record(tmp_path: Path, state: State) -> None:
    earlier = toy_session(tmp_path, TWO)
    first = earlier.session.next_assignment()
    ended = earlier.done(first).model_copy(update={"state": state, "fault": "StageFault"})
    earlier.session.ended(first.trial, ended)
    heard = Heard()
    toy = toy_session(tmp_path, TWO, known=read_records(tmp_path / "records"), listeners=[heard])
    assert toy.finish_all() == ["t0001"]
    assert [record.trial for record in heard] == ["t0001"]
    assert heard.known == [ended]
    assert toy.session.all_done == (state is not State.FAILED)
    assert dict(toy.proposer.told) == {0: outcome_of(ended), 1: Outcome((0.1, 0.8))}
    assert toy.session.finished


def test_a_trial_that_was_cut_off_is_run_again(tmp_path: Path) -> None:
    earlier = toy_session(tmp_path, [{}])
    earlier.session.updated(earlier.running(earlier.session.next_assignment(), "implant"))
    assert toy_session(tmp_path, [{}], known=read_records(tmp_path / "records")).finish_all() == ["t0000"]


@pytest.mark.parametrize("died", [False, True])
def test_a_trial_that_was_lost_to_a_fault_is_run_again(tmp_path: Path, died: bool) -> None:
    earlier = toy_session(tmp_path, [{}])
    assignment = earlier.session.next_assignment()
    if died:
        for _ in range(3):
            earlier.session.crashed(assignment.trial, "the worker process died")
            earlier.session.next_assignment()
    else:
        earlier.session.ended(assignment.trial, earlier.failed(assignment).model_copy(update={"lost": True}))
    assert not earlier.session.all_done
    toy = toy_session(tmp_path, [{}], known=read_records(tmp_path / "records"))
    assert toy.finish_all() == ["t0000"]
    assert toy.proposer.told[0][1] == Outcome((0.1, 0.8))


def test_a_record_of_another_configuration_or_seed_is_no_answer(tmp_path: Path) -> None:
    toy = toy_session(tmp_path, [{}])
    record = toy.done(toy.session.next_assignment())
    other = record.model_copy(update={"config": {"victim": {}, "defense": {}}})
    assert toy_session(tmp_path, [{}], known=[other]).finish_all() == ["t0001"]  # and the other keeps its name
    assert toy_session(tmp_path, [{}], known=[record.model_copy(update={"seed": 5})]).finish_all() == ["t0000"]


@pytest.mark.parametrize("state", [State.DONE, State.FAILED])
@pytest.mark.parametrize("change", ["data", "code"])
def test_a_record_of_other_work_is_no_answer(tmp_path: Path, state: State, change: str) -> None:
    """The same configuration, but the data, or a stage's code, has changed since: its keys are others."""
    toy = toy_session(tmp_path, [{}])
    record = toy.done(toy.session.next_assignment()).model_copy(update={"state": state})
    at = 0 if change == "data" else 3
    stages = [stage.model_copy(update={"key": "other"}) if n >= at else stage for n, stage in enumerate(record.stages)]
    stale = record.model_copy(update={"stages": tuple(stages)})
    assert toy_session(tmp_path, [{}], known=[record]).finish_all() == []
    assert toy_session(tmp_path, [{}], known=[stale]).finish_all() == ["t0000"]


def test_a_done_record_that_lacks_stages_is_no_answer_and_a_failed_one_is(tmp_path: Path) -> None:
    toy = toy_session(tmp_path, [{}])
    assignment = toy.session.next_assignment()
    cut = toy.done(assignment).model_copy(update={"stages": toy.stages(assignment, "implant")})
    assert toy_session(tmp_path, [{}], known=[cut]).finish_all() == ["t0000"]
    assert toy_session(tmp_path, [{}], known=[toy.failed(assignment, "implant")]).finish_all() == []


def test_a_failure_before_the_first_stage_says_nothing_of_the_work(tmp_path: Path) -> None:
    """Of a trial that was skipped for its victim, too: the victim may be another by now."""
    toy = toy_session(tmp_path, [{}])
    failed = toy.session.next_assignment().record(State.FAILED, "labels.csv cannot be read")
    assert toy_session(tmp_path, [{}], known=[failed]).finish_all() == ["t0000"]


def test_configurations_keep_their_numbers_when_a_study_goes_on_with_another_search(tmp_path: Path) -> None:
    toy = toy_session(tmp_path, [{}, {RATIO: 0.1}])
    toy.finish_all()
    known = read_records(toy.records)
    extended = toy_session(tmp_path, [{RATIO: 0.2}, {RATIO: 0.1}, {RATIO: 0.3}], known=known)
    assert extended.finish_all() == ["t0002", "t0003"]
    assert dict(extended.proposer.told)[1] == outcome_of(known[1])


def test_a_known_seed_and_a_new_one_are_told_together(tmp_path: Path) -> None:
    earlier = toy_session(tmp_path, [{}], replicates=2)
    first = earlier.session.next_assignment()
    known = [earlier.done(first, asr=0.2)]
    toy = toy_session(tmp_path, [{}], replicates=2, known=known)
    (second,) = toy.start_all()
    toy.session.ended(second.trial, toy.done(second, asr=0.4))
    assert toy.proposer.told == [(0, Outcome((pytest.approx(0.3), pytest.approx(0.8))))]


def test_a_search_goes_on_as_its_outcomes_come_in(tmp_path: Path) -> None:
    toy = toy_session(tmp_path, [{RATIO: ratio} for ratio in (0.1, 0.2, 0.3, 0.4)], lag=2)
    assert toy.finish_all() == ["t0000", "t0001", "t0002", "t0003"]
    assert toy.session.finished


WEAK = WeakImplant.__name__


def test_a_weak_implant_fails_the_trials_of_its_victim_and_no_others(tmp_path: Path) -> None:
    layout = [{}, {THRESHOLD: 0.2}, {RATIO: 0.5}, {ATTACK: 0.2}, {ATTACK: 0.2, THRESHOLD: 0.2}]
    heard = Heard()
    toy = toy_session(tmp_path, layout, listeners=[heard])
    first = toy.session.next_assignment()
    weak = toy.failed(first, "implant", fault=WEAK)
    toy.session.ended(first.trial, weak)
    assert set(toy.finish_all()) == {"t0003", "t0004"}
    assert states(toy) == {
        "t0000": State.FAILED,
        "t0001": State.FAILED,
        "t0002": State.FAILED,
        "t0003": State.DONE,
        "t0004": State.DONE,
    }
    skipped = [record for record in heard if record.trial in {"t0001", "t0002"}]
    assert [(record.reason, record.fault, record.stages) for record in skipped] == [(weak.reason, WEAK, ())] * 2
    ruled_out = Outcome(None, ruled_out=True)
    assert sorted(toy.proposer.told, key=lambda told: told[0])[:3] == [(number, ruled_out) for number in range(3)]
    assert toy.session.finished


def stopped(gate: str, stage: str, measured: float = 0.1) -> GateOutcome:
    return GateOutcome(
        gate=gate, stage=stage, measured=measured, threshold=0.5, outcome="stopped", knew="poison", reason="no sense"
    )


@pytest.mark.parametrize(("stage", "skipped"), [("implant", {1, 2}), ("suspect", {1})])
def test_trials_that_a_gate_would_stop_behind_the_same_stage_are_not_started(
    tmp_path: Path, stage: str, skipped: set[int]
) -> None:
    heard = Heard()
    toy = toy_session(tmp_path, [{}, {THRESHOLD: 0.2}, {RATIO: 0.5}, {ATTACK: 0.2}], listeners=[heard])
    first = toy.session.next_assignment()
    found = stopped("clean_accuracy", stage)
    failed = toy.failed(first, stage, fault="StoppedByGate").model_copy(update={"gates": (found,)})
    toy.session.ended(first.trial, failed)
    assert set(toy.finish_all()) == {f"t{number:04d}" for number in {1, 2, 3} - skipped}
    told = [record for record in heard if record.number in skipped]
    assert [(record.state, record.gates) for record in told] == [(State.FAILED, (found,))] * len(skipped)


def test_a_resume_with_other_thresholds_asks_again(tmp_path: Path) -> None:
    first = toy_session(tmp_path, [{}])
    assignment = first.session.next_assignment()
    found = stopped("overfit_auroc", "overfit")
    failed = first.failed(assignment, "overfit", fault="StoppedByGate").model_copy(update={"gates": (found,)})
    reported = found.model_copy(update={"outcome": "reported"})
    passed = first.done(assignment).model_copy(update={"gates": (reported,)})
    for known, gates, started in (
        (failed, {"act": "stop"}, False),
        (failed, {"act": "report"}, True),
        (failed, {"act": "stop", "at_least": 0.05}, True),
        (passed, {"act": "report", "at_least": 0.9}, False),
        (passed, {"act": "stop"}, True),
    ):
        again = toy_session(tmp_path, [{}], known=[known], gates=Gates.model_validate({"overfit_auroc": gates}))
        assert (again.session.next_assignment() is not None) is started


def test_another_seed_of_a_weak_victim_is_another_victim(tmp_path: Path) -> None:
    toy = toy_session(tmp_path, TWO, replicates=2)
    first = toy.session.next_assignment()
    toy.session.ended(first.trial, toy.failed(first, "implant", fault=WEAK))
    other_seed = {f"t{number:04d}-s{1 - first.seed}" for number in range(2)}
    assert set(toy.finish_all()) == other_seed


def test_a_trial_that_asks_less_of_the_implant_is_not_skipped(tmp_path: Path) -> None:
    """`min_asr` judges the work and is not part of its key."""
    toy = toy_session(tmp_path, [{LEAST: 0.9}, {LEAST: 0.9, THRESHOLD: 0.2}, {LEAST: 0.1}])
    first = toy.session.next_assignment()
    assert first.changes[LEAST] == 0.9
    toy.session.ended(first.trial, toy.failed(first, "implant", fault=WEAK))
    assert toy.finish_all() == ["t0002"]


def test_a_victim_stays_failed_when_the_run_is_resumed(tmp_path: Path) -> None:
    toy = toy_session(tmp_path, [{}, {THRESHOLD: 0.2}])
    first = toy.session.next_assignment()
    known = [toy.failed(first, "implant", fault=WEAK)]
    again = toy_session(tmp_path, [{}, {THRESHOLD: 0.2}], known=known)
    assert again.session.next_assignment() is None
    assert states(again) == {"t0001": State.FAILED}


def test_a_skipped_trial_lets_the_search_go_on(tmp_path: Path) -> None:
    toy = toy_session(tmp_path, [{THRESHOLD: t} for t in (0.1, 0.2, 0.3)] + [{ATTACK: 0.2}], lag=1)
    first = toy.session.next_assignment()
    toy.session.ended(first.trial, toy.failed(first, "implant", fault=WEAK))
    assert toy.finish_all() == ["t0003"]
    assert toy.session.finished


@pytest.mark.parametrize("reached", [None, "implant"])
def test_a_crash_too_often_is_a_failure_with_its_reason_and_frees_the_work(tmp_path: Path, reached: str | None) -> None:
    toy = toy_session(tmp_path, TWO)
    stages = ()
    for _ in range(3):
        (first,) = toy.start_all()
        if reached:
            toy.session.updated(toy.running(first, reached))
            stages = toy.stages(first, reached)
        toy.session.crashed(first.trial, "the worker process died")
    (record,) = read_records(toy.records)
    assert (record.state, record.reason, record.stages) == (State.FAILED, "the worker process died", stages)
    assert (record.lost, record.failed_by) == (True, "fault")
    assert toy.proposer.told == [(0, Outcome(None))]
    assert toy.finish_all() == ["t0001"]


def test_a_trial_whose_worker_died_runs_again_and_says_when_where_and_why(tmp_path: Path) -> None:
    heard = Heard()
    toy = toy_session(tmp_path, [{}], listeners=[heard])
    for number, fault in (("1", WORKER_DIED), ("2", NODE_DIED)):
        (assignment,) = toy.start_all()
        toy.session.updated(begun(toy.running(assignment, "implant"), number))
        toy.session.crashed(assignment.trial, "it died", fault)
        waiting = heard[-1]
        assert (waiting.state, waiting.reason, waiting.lost, waiting.failed_by) == (State.RUNNING, "", False, None)
        assert read_records(toy.records) == [waiting]
    (assignment,) = toy.start_all()
    toy.session.ended(assignment.trial, begun(toy.done(assignment), "3"))
    (record,) = read_records(toy.records)
    assert [(each.started_at, each.node, each.ended_by) for each in record.attempts] == [
        ("1", "node-1", "WorkerDied: it died"),
        ("2", "node-2", "NodeDied: it died"),
        ("3", "node-3", ""),
    ]
    assert all(each.ended_at for each in record.attempts[:-1])
    assert toy.proposer.told == [(0, Outcome((0.1, 0.8)))]


@pytest.mark.parametrize("end", ["interrupt", "stop"])
def test_a_trial_that_waits_for_another_run_when_the_sweep_ends_says_so(tmp_path: Path, end: str) -> None:
    toy = toy_session(tmp_path, [{}])
    (assignment,) = toy.start_all()
    toy.session.updated(begun(toy.running(assignment, "implant"), "1"))
    toy.session.crashed(assignment.trial, "it died")
    getattr(toy.session, end)("SIGTERM")
    (record,) = read_records(toy.records)
    assert (record.state, record.reason, record.attempts[-1].ended_by) == (
        "INTERRUPTED",
        "SIGTERM",
        "WorkerDied: it died",
    )
    again = toy_session(tmp_path, [{}], known=[record])
    (assignment,) = again.start_all()
    again.session.ended(assignment.trial, begun(again.done(assignment), "2"))
    (record,) = read_records(again.records)
    assert [each.ended_by for each in record.attempts] == ["WorkerDied: it died", ""]


def test_a_worker_that_dies_before_it_says_anything_is_an_attempt_too(tmp_path: Path) -> None:
    toy = toy_session(tmp_path, [{}])
    for node in ("a", "b"):
        (assignment,) = toy.start_all()
        toy.session.crashed(assignment.trial, "it died", node=node)
    (record,) = read_records(toy.records)
    assert [each.node for each in record.attempts] == ["a", "b"]


def test_what_a_trial_has_done_is_not_waited_for_when_it_runs_again(tmp_path: Path) -> None:
    toy = toy_session(tmp_path, TWO)
    (first,) = toy.start_all()
    toy.session.updated(toy.running(first, "overfit"))
    toy.session.crashed(first.trial, "it died")
    assert [assignment.trial for assignment in toy.start_all()] == ["t0000"], "the other one needs what it left undone"
    toy.session.updated(toy.running(first, "attribute"))
    assert [assignment.trial for assignment in toy.start_all()] == ["t0001"]


def lost(toy: Toy, assignment: Any, fault: str, **more: Any) -> TrialRecord:
    return toy.failed(assignment, "poison", fault=fault).model_copy(update={"lost": True, **more})


def test_a_trial_that_ran_out_of_memory_runs_again_alone(tmp_path: Path) -> None:
    toy = toy_session(tmp_path, [{}])
    (assignment,) = toy.start_all()
    assert assignment.alone == ""
    for fault, alone in (("OutOfMemoryError", "gpu"), ("MemoryError", "node")):
        toy.session.ended(assignment.trial, lost(toy, assignment, fault))
        (assignment,) = toy.start_all()
        assert assignment.alone == alone


def test_a_trial_on_an_unfit_node_runs_elsewhere_as_long_as_there_is_another_node(tmp_path: Path) -> None:
    toy = toy_session(tmp_path, [{}])
    left: list[str] = []

    def leave(trial: str, record: TrialRecord) -> bool:
        left.append(record.attempts[-1].node)
        return len(left) < 5

    toy.session.leave_node = leave
    for number in range(5):
        (assignment,) = toy.start_all()
        toy.session.ended(assignment.trial, begun(lost(toy, assignment, "UnfitNode"), str(number)))
    assert left == ["node-0", "node-1", "node-2", "node-3", "node-4"]
    (record,) = read_records(toy.records)
    assert (record.state, record.lost, record.failed_by) == (State.FAILED, True, "mistake")
    assert [each.node for each in record.attempts] == left
    assert [bool(each.ended_by) for each in record.attempts] == [True] * 4 + [False]
    assert record.reason.startswith("no node is left that can run it:\n")


def test_a_trial_waits_for_another_sweep_and_others_go_first(tmp_path: Path) -> None:
    toy = toy_session(tmp_path, [{}, {THRESHOLD: 0.2}, {ATTACK: 0.3}])
    (first,) = toy.start_all()
    toy.session.updated(toy.running(first, "pretrain"))
    (other,) = toy.start_all()
    assert other.changes == {ATTACK: 0.3}
    key = toy.stages(first, "overfit")[-1].key
    for _ in range(4):  # as often as it takes
        toy.session.ended(first.trial, lost(toy, first, "Waits", waits_for=key))
        assert toy.session.awaited == {key}
        assert toy.start_all() == []
        assert not toy.session.finished
        toy.session.arrived(key, done=False)
        (first,) = toy.start_all()
    toy.session.ended(first.trial, lost(toy, first, "Waits", waits_for=key))
    toy.session.ended(other.trial, toy.done(other))
    toy.session.arrived(key, done=True)
    assert toy.session.awaited == set()
    assert toy.finish_all() == ["t0000", "t0001"]
    assert toy.session.all_done
    assert all(len(record.attempts) <= 1 for record in read_records(toy.records))


def test_a_trial_that_no_worker_took_on_leaves_no_trace(tmp_path: Path) -> None:
    toy = toy_session(tmp_path, TWO)
    (first,) = toy.start_all()
    toy.session.put_back(first.trial)
    assert not list(tmp_path.glob("records/*"))
    assert toy.finish_all() == ["t0000", "t0001"]


def test_a_session_has_finished_when_the_last_running_trial_ends(tmp_path: Path) -> None:
    toy = toy_session(tmp_path, [{RATIO: 0.1}, {RATIO: 0.2}])
    seen = [toy.session.finished]
    for _ in range(2):
        assignment = toy.session.next_assignment()
        seen.append(toy.session.finished)
        toy.session.ended(assignment.trial, toy.done(assignment))
        seen.append(toy.session.finished)
    assert seen == [False, False, False, False, True]


def test_a_search_that_has_more_to_propose_is_not_finished(tmp_path: Path) -> None:
    toy = toy_session(tmp_path, TWO, lag=1)
    first = toy.session.next_assignment()
    toy.session.ended(first.trial, toy.done(first))
    assert not toy.session.finished


def test_closing_settles_the_search(tmp_path: Path) -> None:
    toy = toy_session(tmp_path, [{}])
    toy.finish_all()
    toy.session.close()
    assert toy.proposer.finished == 1


def test_a_stopped_session_starts_nothing_more_and_ends_with_what_runs(tmp_path: Path) -> None:
    toy = toy_session(tmp_path, [{ATTACK: 0.1}, {ATTACK: 0.2}], lag=2)
    first = toy.session.next_assignment()
    toy.session.stop("the disk is full")
    toy.session.updated(toy.running(first, "evaluate"))
    assert toy.session.next_assignment() is None
    assert not toy.session.finished
    toy.session.ended(first.trial, toy.done(first))
    assert toy.session.next_assignment() is None
    assert toy.session.finished
    assert toy.session.stopped == "the disk is full"


def test_a_session_stops_when_trial_after_trial_is_lost(tmp_path: Path) -> None:
    """An expired token: the rest would be lost within seconds, and told to the search as failures."""
    toy = toy_session(tmp_path, [{ATTACK: 0.01 * number} for number in range(1, 3 * LOST_IN_A_ROW)])
    for number in range(LOST_IN_A_ROW + 3):
        assignment = toy.session.next_assignment()
        assert assignment is not None, "a trial that ends for its own reasons begins the count anew"
        lost = toy.failed(assignment, "poison").model_copy(update={"lost": number != 2})
        toy.session.ended(assignment.trial, lost)
    assert toy.session.next_assignment() is None
    assert toy.session.stopped == f"{LOST_IN_A_ROW} trials in a row were lost, the last to it went wrong"
    assert toy.session.finished
    assert not toy.session.all_done


def test_a_record_that_cannot_be_written_stops_the_session_and_loses_no_running_trial(tmp_path: Path) -> None:
    heard = Heard()
    toy = toy_session(tmp_path, [{ATTACK: 0.1}, {ATTACK: 0.2}, {ATTACK: 0.3}], listeners=[heard])
    first = toy.session.next_assignment()
    toy.session.updated(toy.running(first, "pretrain"))
    second = toy.session.next_assignment()
    shutil.rmtree(tmp_path / "records")
    (tmp_path / "records").write_text("no folder")
    toy.session.updated(toy.running(first, "poison"))
    assert toy.session.next_assignment() is None
    (tmp_path / "records").unlink()
    for assignment in (first, second):
        toy.session.ended(assignment.trial, toy.done(assignment))
    assert states(toy) == {first.trial: State.DONE, second.trial: State.DONE}
    assert [record.trial for record in heard] == [first.trial] * 3 + [second.trial]
    assert toy.session.finished
    assert f"the record of {first.trial} cannot be written" in toy.session.stopped


def test_trials_that_are_lost_every_time_do_not_keep_a_resume_from_the_others(tmp_path: Path) -> None:
    """A batch that never fits into memory, say."""
    layout = [{ATTACK: 0.01 * number} for number in range(1, LOST_IN_A_ROW + 3)]
    toy = toy_session(tmp_path, layout)
    assignments = [toy.session.next_assignment()]
    toy.session.updated(toy.running(assignments[0], "pretrain"))
    assignments += toy.start_all()[: LOST_IN_A_ROW - 1]
    known = [toy.failed(assignment, "poison").model_copy(update={"lost": True}) for assignment in assignments]
    again = toy_session(tmp_path, layout, known=known)
    for _ in layout:
        assignment = again.session.next_assignment()
        lost = {"lost": assignment.trial in [record.trial for record in known]}
        again.session.ended(assignment.trial, again.failed(assignment, "poison").model_copy(update=lost))
    assert again.session.finished
    assert not again.session.stopped


def test_a_search_that_cannot_be_written_down_stops_the_session(tmp_path: Path) -> None:
    toy = toy_session(tmp_path, [{ATTACK: 0.1}, {ATTACK: 0.2}], lag=1)
    toy.session.next_assignment()

    def full() -> Proposal:
        raise OSError(28, "No space left on device")

    toy.proposer.propose = full
    assert toy.session.next_assignment() is None
    assert "No space left" in toy.session.stopped


def begun(record: TrialRecord, started: str) -> TrialRecord:
    """Return a record as a worker writes it, which knows of no other start than its own."""
    attempt = Attempt(started_at=started, node=f"node-{started}")
    return record.model_copy(update={"started_at": started, "attempts": (attempt,)})


@pytest.mark.parametrize(
    ("left", "ended_by"),
    [
        ({"state": State.RUNNING}, "interrupted"),
        ({"state": State.FAILED, "lost": True, "fault": "OSError", "reason": "disk full"}, "OSError: disk full"),
    ],
)
def test_a_trial_that_a_resume_takes_up_again_tells_how_it_was_left(tmp_path: Path, left: Any, ended_by: str) -> None:
    before = toy_session(tmp_path, [{}])
    known = begun(before.running(before.session.next_assignment()), "1").model_copy(update=left)
    again = toy_session(tmp_path, [{}], known=[known])
    assignment = again.session.next_assignment()
    again.session.updated(begun(again.running(assignment), "2"))
    again.session.ended(assignment.trial, begun(again.done(assignment), "2"))
    (record,) = read_records(again.records)
    assert [(each.started_at, each.ended_by) for each in record.attempts] == [("1", ended_by), ("2", "")]


@pytest.mark.parametrize("state", [State.FAILED, State.PRUNED, State.RUNNING])
def test_only_a_done_trial_has_objectives(tmp_path: Path, state: State) -> None:
    toy = toy_session(tmp_path, [{}])
    record = toy.done(toy.session.next_assignment())
    assert outcome_of(record).values is not None
    assert outcome_of(record.model_copy(update={"state": state})).values is None
    assert outcome_of(record.model_copy(update={"val": None})).values is None


def test_names_sort_by_number_and_say_the_seed_where_there_are_several() -> None:
    assert trial_name(Proposal(7), 0, 1) == "t0007"
    assert trial_name(Proposal(7), 2, 3) == "t0007-s2"


def test_changes_are_described_by_the_last_part_of_their_paths() -> None:
    assert describe({RATIO: 0.1, "victim.attack.kind": "sig"}) == "suspicious_ratio=0.1, kind=sig"
    assert describe({}) == "base"
