"""The bridge between Ray Tune and a session; Tune itself is not started."""

from __future__ import annotations

import copy
import inspect
import pickle
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from ray.tune.search import Searcher
from toy_session import Toy, toy_session

from sweeps.backends.nodes import Nodes
from sweeps.backends.order import Order
from sweeps.backends.searcher import SILENT_SECONDS, SessionSearcher
from sweeps.backends.trainable import ASSIGNMENT, NODE, RECORD, WAITS
from sweeps.backends.work import stalled_record
from sweeps.scheduling.worker_ends import WorkerEnd
from sweeps.workers.places import Place
from sweeps.workers.pool import Capacity
from ubt.trials.assignment import Assignment
from ubt.trials.record import Attempt, State, TrialRecord, read_records

THRESHOLD = "defense.token_threshold"
HERE = Place("worker", "node")
NOTHING_WAITS = SimpleNamespace(get_live_trials=set)
"""Tune's controller, where no trial waits for a worker."""


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    return toy_session(tmp_path, [{}, {THRESHOLD: 0.2}])


def start(searcher: SessionSearcher, trial_id: str) -> Assignment:
    config = searcher.suggest(trial_id=trial_id)
    assert isinstance(config, dict)
    return Assignment.model_validate(config[ASSIGNMENT])


def searcher_of(toy: Toy, now: int = 1, most: int | None = None, **more: Any) -> SessionSearcher:
    """Return the bridge to a session, with so many workers."""
    return SessionSearcher(toy.session, Capacity(now, now if most is None else most), **more)


def up(searcher: SessionSearcher, trial_id: str, **on_a_cluster: object) -> None:
    """Let one of Tune's trials be an idle one whose worker comes up, and end for a trial."""
    assert searcher.suggest(trial_id=trial_id) == {ASSIGNMENT: None, **on_a_cluster}
    assert searcher.releases_worker(trial_id, HERE)
    searcher.on_trial_complete(trial_id=trial_id, result={"done": True})


def result_of(record: TrialRecord) -> dict[str, object]:
    """A result as Tune hands it over."""
    return {RECORD: record.model_dump_json(), "done": record.state.ended, "training_iteration": 1}


def states(toy: Toy) -> dict[str, State]:
    return {record.trial: record.state for record in read_records(toy.records)}


def test_tune_is_given_trials_one_after_the_other_then_nothing_then_the_end(toy: Toy) -> None:
    searcher = searcher_of(toy, 2)
    up(searcher, "idle")
    first = start(searcher, "a")
    assert searcher.suggest(trial_id="i") == {ASSIGNMENT: None}
    assert not searcher.releases_worker("i", HERE)
    searcher.on_trial_result(trial_id="a", result=result_of(toy.running(first, "attribute")))
    assert searcher.releases_worker("i", HERE)
    searcher.on_trial_complete(trial_id="i", result={"done": True})
    second = start(searcher, "b")
    assert second.changes == {THRESHOLD: 0.2}
    assert searcher.suggest(trial_id="c") is None
    for trial_id, assignment in (("a", first), ("b", second)):
        searcher.on_trial_complete(trial_id=trial_id, result=result_of(toy.done(assignment)))
    assert searcher.suggest(trial_id="c") == Searcher.FINISHED
    assert states(toy) == {"t0000": State.DONE, "t0001": State.DONE}


def test_results_on_the_way_become_records(toy: Toy) -> None:
    searcher = searcher_of(toy)
    up(searcher, "idle")
    record = toy.running(start(searcher, "a"), "implant")
    searcher.on_trial_result(trial_id="a", result=result_of(record))
    assert read_records(toy.records) == [record]


@pytest.mark.parametrize("lost", [{"error": True}, {"result": None}, {"result": {}}, {"result": {}, "error": True}])
def test_a_trial_without_an_end_of_its_own_has_lost_its_worker(toy: Toy, lost: dict[str, object]) -> None:
    searcher = searcher_of(toy)
    for trial_id in "abc":
        up(searcher, f"idle-{trial_id}")
        assert start(searcher, trial_id).trial == "t0000"
        searcher.on_trial_complete(trial_id=trial_id, **lost)
    (record,) = read_records(toy.records)
    assert record.state is State.FAILED
    assert record.reason == "the worker process was killed or crashed"
    up(searcher, "idle-d")
    assert start(searcher, "d").trial == "t0001"


@pytest.mark.parametrize("idle", [True, False])
def test_a_sweep_ends_with_one_message_when_no_node_can_start_a_worker(toy: Toy, idle: bool) -> None:
    quarantine = Mock(side_effect=[True, True, False])
    searcher = searcher_of(toy, nodes=Mock(spec=Nodes, quarantine=quarantine, for_workers=dict))
    end = WorkerEnd(what="workers cannot start: ModuleNotFoundError: No module named 'plugin'", cannot_start=True)
    if not idle:
        up(searcher, "idle", nodes={})
    for trial_id in "abc":
        assert not searcher.cannot_start
        searcher.suggest(trial_id=trial_id)
        searcher.worker_ended(trial_id, end)
        searcher.on_trial_complete(trial_id=trial_id, error=True)
    assert searcher.cannot_start == toy.session.stopped
    assert "No module named 'plugin'" in searcher.cannot_start
    assert searcher.suggest(trial_id="d") == Searcher.FINISHED
    assert not read_records(toy.records), "no trial was ended by it"


def test_an_assignment_is_given_to_a_worker_that_is_there_and_to_no_other(tmp_path: Path) -> None:
    """Else it might wait for a worker that no node has, while the one that is free next could have had it."""
    toy = toy_session(tmp_path, [{"victim.pretrain.epochs": epochs} for epochs in range(1, 5)])
    searcher = searcher_of(toy, 2, most=3)
    for idle in "ijk":
        assert searcher.suggest(trial_id=idle) == {ASSIGNMENT: None}, "all four could start: one more than fits"
    assert searcher.suggest(trial_id="l") is None
    assert searcher.releases_worker("i", HERE)
    searcher.on_trial_complete(trial_id="i", result={"done": True})
    start(searcher, "a")
    assert searcher.suggest(trial_id="b") is None, "the others are not up"
    assert searcher.releases_worker("j", HERE)
    searcher.on_trial_complete(trial_id="j", result={"done": True})
    start(searcher, "b")


def test_a_node_that_joins_gets_a_worker_while_trials_run(tmp_path: Path) -> None:
    """Concurrency was what fitted at the start."""
    toy = toy_session(tmp_path, [{"victim.pretrain.epochs": epochs} for epochs in range(1, 5)])
    searcher = searcher_of(toy, 1)
    up(searcher, "i")
    start(searcher, "a")
    assert searcher.suggest(trial_id="b") is None
    searcher.pool.capacity = Capacity(2, 2)
    up(searcher, "b")
    start(searcher, "c")
    assert searcher.suggest(trial_id="d") is None


def test_an_idle_worker_is_kept_until_there_is_something_for_it(toy: Toy) -> None:
    searcher = searcher_of(toy, 2)
    up(searcher, "a")
    first = start(searcher, "c")
    assert searcher.suggest(trial_id="d") == {ASSIGNMENT: None}
    assert not searcher.releases_worker("d", HERE)
    searcher.on_trial_result(trial_id="c", result=result_of(toy.running(first, "attribute")))
    assert searcher.releases_worker("d", HERE)
    searcher.on_trial_complete(trial_id="d", result={"done": False})
    assert start(searcher, "e").trial == "t0001"


def test_an_idle_worker_goes_when_nothing_waits_any_more(toy: Toy) -> None:
    """They were held to the last trial's end, so that no autoscaler could let their nodes go."""
    searcher = searcher_of(toy, 2)
    up(searcher, "a")
    first = start(searcher, "c")
    assert searcher.suggest(trial_id="d") == {ASSIGNMENT: None}
    searcher.on_trial_result(trial_id="c", result=result_of(toy.running(first, "attribute")))
    assert searcher.releases_worker("d", HERE)
    searcher.on_trial_complete(trial_id="d", result={"done": False})
    second = start(searcher, "e")
    searcher.on_trial_complete(trial_id="c", result=result_of(toy.done(first)))
    assert searcher.suggest(trial_id="f") is None, "its worker is kept for nothing"
    assert searcher.for_free == {"e"}, "so that Tune ends it"
    searcher.on_trial_complete(trial_id="e", result=result_of(toy.done(second)))
    assert searcher.suggest(trial_id="f") == Searcher.FINISHED


def test_no_more_workers_are_started_than_trials_are_known(toy: Toy) -> None:
    searcher = searcher_of(toy, 64)
    given = [searcher.suggest(trial_id=str(number)) for number in range(64)]
    assert given.count({ASSIGNMENT: None}) == 2


def test_what_is_asked_for_in_vain_is_taken_back_at_the_end(toy: Toy) -> None:
    """An autoscaler would go on adding nodes for it."""
    searcher = searcher_of(toy, 1, most=9)
    up(searcher, "a")
    first = start(searcher, "c")
    searcher.on_trial_result(trial_id="c", result=result_of(toy.running(first, "attribute")))
    assert searcher.suggest(trial_id="d") == {ASSIGNMENT: None}
    searcher.on_trial_complete(trial_id="c", result=result_of(toy.done(first)))
    second = start(searcher, "e")
    assert searcher.unused() == [], "perhaps it is needed in a moment"
    searcher.on_trial_complete(trial_id="e", result=result_of(toy.done(second)))
    assert searcher.unused() == ["d"]


def test_a_trial_whose_node_leaves_goes_on_elsewhere_after_its_stage_and_none_of_its_times_is_taken(
    tmp_path: Path,
) -> None:
    toy = toy_session(tmp_path, [{}])
    nodes = Mock(spec=Nodes, leaving={"n1"}, for_workers=dict)
    searcher = SessionSearcher(toy.session, Capacity(1, 1), nodes)
    up(searcher, "idle", nodes={})
    for trial_id in "abcd":
        assignment = start(searcher, trial_id)
        attempt = (Attempt(started_at=trial_id, node="here"),)
        within = toy.running(assignment, "implant").model_copy(update={"attempts": attempt})
        (*before, last) = within.stages
        training = within.model_copy(update={"stages": (*before, last.model_copy(update={"complete": False}))})
        assert not searcher.hands_back(trial_id, result_of(training) | {NODE: "n1"}), "its stage would be lost"
        assert not searcher.hands_back(trial_id, result_of(within) | {NODE: "n2"})
        assert searcher.hands_back(trial_id, result_of(within) | {NODE: "n1"})
        searcher.on_trial_complete(trial_id=trial_id, result=result_of(within) | {NODE: "n1"})
        assert states(toy) == {"t0000": State.RUNNING}
    (record,) = read_records(toy.records)
    assert [each.ended_by for each in record.attempts] == ["NodeLeft: its node leaves the cluster"] * 4


def test_tune_ends_idle_trials_whose_workers_are_needed_and_no_other(toy: Toy) -> None:
    searcher = searcher_of(toy)
    order = Order(searcher)
    assert searcher.suggest(trial_id="a") == {ASSIGNMENT: None}
    assert order.on_trial_result(NOTHING_WAITS, SimpleNamespace(trial_id="a"), {}) == Order.STOP
    searcher.on_trial_complete(trial_id="a", result={"done": False})
    start(searcher, "b")
    assert order.on_trial_result(NOTHING_WAITS, SimpleNamespace(trial_id="b"), {}) == Order.CONTINUE


def test_if_workers_do_not_come_up_a_trial_says_why(toy: Toy) -> None:
    searcher = searcher_of(toy)
    assert searcher.suggest(trial_id="a") == {ASSIGNMENT: None}
    searcher.on_trial_complete(trial_id="a", error=True)
    start(searcher, "b")
    assert searcher.suggest(trial_id="c") is None
    searcher.on_trial_complete(trial_id="b", error=True)
    (record,) = read_records(toy.records)
    assert record.attempts[0].ended_by == "WorkerDied: the worker process was killed or crashed"
    again = start(searcher, "d")
    searcher.on_trial_result(trial_id="d", result=result_of(toy.running(again, "implant")))
    searcher.on_trial_complete(trial_id="d", error=True)
    assert searcher.suggest(trial_id="e") == {ASSIGNMENT: None}, "one did"


def test_wherever_tune_copies_it_there_is_one_bridge_and_its_session_is_not_written_to_files(toy: Toy) -> None:
    searcher = searcher_of(toy)
    assert copy.deepcopy(searcher) is searcher
    assert len(pickle.dumps(searcher)) < 500


def test_parameters_are_called_as_tune_calls_them() -> None:
    for name in ("suggest", "on_trial_result", "on_trial_complete"):
        ours = inspect.signature(getattr(SessionSearcher, name)).parameters
        assert list(inspect.signature(getattr(Searcher, name)).parameters)[: len(ours)] == list(ours)


def test_the_process_that_starts_a_sweep_waits_for_no_torch() -> None:
    """It takes seconds and 650 MB, and only workers need it."""
    modules = "sweeps.run.launch, sweeps.backends.searcher, sweeps.backends.trainable"
    script = f"import sys, {modules}; print('torch' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines()[-1] == "False"


def test_the_last_words_of_a_worker_that_stands_still_are_what_ended_its_trial(toy: Toy) -> None:
    searcher = searcher_of(toy)
    up(searcher, "idle")
    assignment = start(searcher, "a")
    attempt = (Attempt(started_at="1", node="here"),)
    stalled = stalled_record(toy.running(assignment, "implant"), "`overfit` has not come on", "line 1")
    searcher.on_trial_result(trial_id="a", result=result_of(stalled.model_copy(update={"attempts": attempt})))
    searcher.on_trial_complete(trial_id="a", error=True)
    (record,) = read_records(toy.records)
    assert record.attempts[0].ended_by.startswith("Stalled: `overfit` has not come on")
    up(searcher, "idle-again")
    assert start(searcher, "b").trial == "t0000"


def test_a_worker_without_a_sign_of_life_is_ended_once_it_has_given_one(toy: Toy, caplog: Any) -> None:
    now = [0.0]
    searcher = searcher_of(toy, clock=lambda: now[0])
    up(searcher, "idle")
    start(searcher, "a")
    now[0] = 2 * SILENT_SECONDS
    assert not searcher.silent("a"), "it may still wait for a node"
    for _ in range(3):
        searcher.on_trial_result(trial_id="a", result={WAITS: "a trial that is alone here", "done": False})
    assert caplog.text.count("t0000 waits for a trial that is alone here") == 1
    now[0] += SILENT_SECONDS
    assert searcher.silent("a")
    assert not searcher.silent("a")
    searcher.on_trial_complete(trial_id="a", error=True)
    (record,) = read_records(toy.records)
    assert record.attempts[0].ended_by == "Stalled: its process gave no sign of life for 10 min, and was ended"
