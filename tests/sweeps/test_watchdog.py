"""A stage that does not come on is found, with where it stands, and ended."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from toy_session import toy_session

from sweeps.backends import work as work_module
from sweeps.backends.work import Watchdog, Work, stalled_record, stands_still
from sweeps.scheduling.stalls import LEAST_SECONDS, TIMES, StageTimes
from ubt.common.errors import Stalled
from ubt.common.progress import Pulse, progress
from ubt.trials.assignment import Assignment
from ubt.trials.record import StageRecord, State, TrialRecord, read_records


@pytest.fixture
def assignment(tmp_path: Path) -> Assignment:
    found = toy_session(tmp_path, [{}]).session.next_assignment()
    assert found is not None
    return found


def test_a_stage_stands_still_when_it_has_not_come_on_for_longer_than_it_may(assignment: Assignment) -> None:
    now = [0.0]
    pulse = Pulse(lambda: now[0])
    pulse.begin("overfit")
    given = assignment.model_copy(update={"stall_seconds": 600.0, "stall_seconds_of": {"unlearn": 6000.0}})
    now[0] = 600.0
    assert not stands_still(given, pulse)
    now[0] = 601.0
    assert stands_still(given, pulse) == "`overfit` has not come on for 10 min 01 s"
    pulse.wait("the store")
    assert not stands_still(given, pulse), "what waits says so again and again"
    pulse.begin("unlearn")
    now[0] += 5999.0
    assert not stands_still(given, pulse)
    assert not stands_still(given.model_copy(update={"stall_seconds": 0.0, "stall_seconds_of": {}}), pulse)


def test_every_item_of_a_long_loop_is_a_sign_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    beats: list[int] = []
    monkeypatch.setattr("ubt.common.progress.beat", lambda: beats.append(1))
    assert len(list(progress(range(5), 5, "images"))) == len(beats) == 5


def test_a_stage_may_take_long_that_took_long_before_unless_the_study_says_otherwise(assignment: Assignment) -> None:
    stages = [
        ("overfit", LEAST_SECONDS, True),
        ("evaluate", 1.0, True),
        ("unlearn", 9e9, False),
        ("overfit", 5.0, True),
    ]
    made = tuple(
        StageRecord(stage=stage, key="k", reused=False, seconds=seconds, complete=complete)
        for stage, seconds, complete in stages
    )
    record = assignment.record(State.DONE).model_copy(update={"stages": made})
    times = StageTimes([record])
    assert (times.seconds, times.seconds_of) == (LEAST_SECONDS, {"overfit": TIMES * LEAST_SECONDS})
    asked = StageTimes([record], minutes=5)
    assert (asked.seconds, asked.seconds_of) == (300, {})


def test_who_asks_for_a_record_sees_that_it_is_not_there_yet_and_where_the_work_stands(assignment: Assignment) -> None:
    go_on = threading.Event()

    def stands_here() -> Iterator[TrialRecord]:
        go_on.wait()
        yield assignment.record(State.RUNNING)
        raise ZeroDivisionError("no records left")

    work, records = Work(), stands_here()
    work.ask(records)
    assert work.answer(0.01) is None
    work.ask(records)
    assert "in stands_here" in work.where()
    go_on.set()
    assert work.answer(30) == assignment.record(State.RUNNING)
    work.ask(records)
    with pytest.raises(ZeroDivisionError):
        work.answer(30)
    work.ask(iter([assignment.record(State.DONE)]))
    assert work.answer(30) == assignment.record(State.DONE), "the thread outlives an error"


def test_a_trial_of_this_process_that_stands_still_is_ended(assignment: Assignment) -> None:
    given = assignment.model_copy(update={"stall_seconds": 0.01})
    with pytest.raises(Stalled), Watchdog(given, look_seconds=0.01, pulse=Pulse()) as watchdog:
        while True:
            time.sleep(0.001)
    assert watchdog.found
    assert "has not come on" in watchdog.found[0]
    assert "in test_a_trial_of_this_process_that_stands_still_is_ended" in watchdog.found[1]


def test_nothing_is_raised_after_the_block(assignment: Assignment, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial that ends while the watchdog judges it waits until it has."""
    judging = threading.Event()

    def slowly(*_: object) -> str:
        judging.set()
        time.sleep(0.2)
        return "it stands still"

    monkeypatch.setattr(work_module, "stands_still", slowly)
    with pytest.raises(Stalled), Watchdog(assignment, look_seconds=0.01, pulse=Pulse()):
        assert judging.wait(30)


def test_a_trial_that_stood_still_runs_again_once_and_says_where_it_stood(tmp_path: Path) -> None:
    toy = toy_session(tmp_path, [{}])
    for _ in range(2):
        (assignment,) = toy.start_all()
        record = toy.running(assignment, "poison")
        toy.session.ended(assignment.trial, stalled_record(record, "`implant` has not come on", "File here, line 1"))
    assert not toy.start_all()
    (last,) = read_records(toy.records)
    assert (last.state, last.fault, last.failed_by) == (State.FAILED, "Stalled", "fault")
    assert last.reason == "`implant` has not come on\nIt stood at:\nFile here, line 1"
