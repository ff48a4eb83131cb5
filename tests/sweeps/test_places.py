"""A free worker says where it is, and gets a trial that goes on from what lies there."""

from __future__ import annotations

from pathlib import Path

from toy_session import Toy, toy_session

from sweeps.scheduling.stage_scheduler import StageScheduler
from sweeps.workers.places import Place, Places

RATIO, THRESHOLD = "defense.suspicious_ratio", "defense.token_threshold"


def test_what_the_last_trial_of_a_worker_used_last_is_nearest_then_what_lies_on_its_node(tmp_path: Path) -> None:
    toy = toy_session(tmp_path, [{}, {RATIO: 0.2}])
    places, (a, b) = Places(), (Place("a", "n"), Place("b", "n"))
    first = toy.session.next_assignment()
    assert first
    record = toy.done(first)
    places.note(a, record)
    keys = [stage.key for stage in record.stages]
    assert places.near(a) == places.near(b) == keys[::-1]
    toy.session.ended(first.trial, record)
    second = toy.session.next_assignment()
    assert second
    other = toy.done(second)
    places.note(b, other)
    assert places.near(b)[0] == other.stages[-1].key
    assert places.near(a)[: len(keys)] == keys[::-1]
    assert set(places.near(a)) == set(places.near(b)) == {*keys, *(stage.key for stage in other.stages)}
    assert places.near(Place("c", "m")) == []


def test_of_trials_that_may_start_one_goes_first_whose_parent_lies_there() -> None:
    scheduler: StageScheduler[str] = StageScheduler()
    for parent in "AB":
        for leaf in range(3):
            scheduler.add(f"{parent}{leaf}", [parent, f"{parent}.{leaf}"])
    assert [scheduler.start(), scheduler.start()] == ["A0", "B0"]
    for parent in "AB":
        scheduler.finished(f"{parent}0", parent)
    assert scheduler.start(["B", "A"]) == "B1"
    assert scheduler.start(["A"]) == "A1"
    assert scheduler.start(["B", "A"]) == "B2"
    assert scheduler.start(["B", "A"]) == "A2", "what lies there has no more"


def test_what_most_others_wait_for_goes_before_what_lies_there() -> None:
    """Else the workers would sit on the leaves of one branch, and the other branch come last."""
    scheduler: StageScheduler[str] = StageScheduler(done=["A"])
    for name, work in {"a": ["A", "a"], "b0": ["B", "b0"], "b1": ["B", "b1"]}.items():
        scheduler.add(name, work)
    assert scheduler.start(["A"]) == "b0"
    assert scheduler.start(["A"]) == "a"


def test_a_session_asks_with_what_lies_there(tmp_path: Path) -> None:
    toy: Toy = toy_session(
        tmp_path, [{RATIO: 0.1}, {RATIO: 0.2}, {RATIO: 0.1, THRESHOLD: 0.3}, {RATIO: 0.2, THRESHOLD: 0.3}]
    )
    places = Places()
    for _ in range(2):
        assignment = toy.session.next_assignment()
        assert assignment
        toy.session.ended(assignment.trial, toy.done(assignment))
        places.note(Place(worker=str(assignment.changes[RATIO])), toy.done(assignment))
    second = toy.session.next_assignment(places.near(Place(worker="0.2")))
    assert second
    assert second.changes == {RATIO: 0.2, THRESHOLD: 0.3}
