"""The bridge between Ray Tune and a session; Tune itself is not started."""

from __future__ import annotations

import copy
import inspect
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from ray.tune.search import Searcher
from toy_session import Toy, toy_session

from sweeps.searcher import SessionSearcher
from sweeps.trainable import ASSIGNMENT, RECORD
from ubt.assignment import Assignment
from ubt.records import State, TrialRecord, read_records

THRESHOLD = "defense.token_threshold"


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    return toy_session(tmp_path, [{}, {THRESHOLD: 0.2}])


def start(searcher: SessionSearcher, trial_id: str) -> Assignment:
    config = searcher.suggest(trial_id=trial_id)
    assert isinstance(config, dict)
    return Assignment.model_validate(config[ASSIGNMENT])


def told(record: TrialRecord) -> dict[str, object]:
    """A result as Tune hands it over."""
    return {RECORD: record.model_dump_json(), "done": record.state.ended, "training_iteration": 1}


def states(toy: Toy) -> dict[str, State]:
    return {record.trial: record.state for record in read_records(toy.records)}


def test_tune_is_given_trials_one_after_the_other_then_nothing_then_the_end(toy: Toy) -> None:
    searcher = SessionSearcher(toy.session)
    first = start(searcher, "a")
    assert searcher.suggest(trial_id="b") is None
    searcher.on_trial_result(trial_id="a", result=told(toy.running(first, "attribute")))
    second = start(searcher, "b")
    assert second.changes == {THRESHOLD: 0.2}
    assert searcher.suggest(trial_id="c") is None
    for trial_id, assignment in (("a", first), ("b", second)):
        searcher.on_trial_complete(trial_id=trial_id, result=told(toy.done(assignment)))
    assert searcher.suggest(trial_id="c") == Searcher.FINISHED
    assert states(toy) == {"t0000": State.DONE, "t0001": State.DONE}


def test_results_on_the_way_become_records(toy: Toy) -> None:
    searcher = SessionSearcher(toy.session)
    record = toy.running(start(searcher, "a"), "implant")
    searcher.on_trial_result(trial_id="a", result=told(record))
    assert read_records(toy.records) == [record]


@pytest.mark.parametrize("lost", [{"error": True}, {"result": None}, {"result": {}}, {"result": {}, "error": True}])
def test_a_trial_without_an_end_of_its_own_has_lost_its_worker(toy: Toy, lost: dict[str, object]) -> None:
    searcher = SessionSearcher(toy.session)
    start(searcher, "a")
    searcher.on_trial_complete(trial_id="a", **lost)
    (record,) = read_records(toy.records)
    assert record.state is State.FAILED
    assert "worker process died" in record.reason
    assert start(searcher, "b").trial == "t0001"


def test_wherever_tune_copies_it_there_is_one_bridge_and_its_session_is_not_written_to_files(toy: Toy) -> None:
    searcher = SessionSearcher(toy.session)
    assert copy.deepcopy(searcher) is searcher
    assert len(pickle.dumps(searcher)) < 500


def test_parameters_are_called_as_tune_calls_them() -> None:
    for name in ("suggest", "on_trial_result", "on_trial_complete"):
        ours = inspect.signature(getattr(SessionSearcher, name)).parameters
        assert list(inspect.signature(getattr(Searcher, name)).parameters)[: len(ours)] == list(ours)


def test_whoever_starts_a_sweep_waits_for_no_torch() -> None:
    """It takes seconds and 650 MB, and only workers need it."""
    script = "import sys, sweeps.launch, sweeps.searcher, sweeps.trainable; print('torch' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines()[-1] == "False"
