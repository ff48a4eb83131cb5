"""Stages that need only the clean model are computed beside the implant, not behind it, by a worker that is idle."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from toy_session import Toy, toy_session

from sweeps.scheduling.beside import LONG_SECONDS
from ubt.trials.assignment import Assignment
from ubt.trials.record import State, TrialRecord, read_records

THRESHOLD = "defense.token_threshold"


class Clock:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def toy_of(folder: Path, leases: bool = True, trials: int = 2) -> tuple[Toy, Clock]:
    waited: list[str] = []
    elsewhere: Any = SimpleNamespace(
        leases_hold=leases, arrivals=list, wait_for=lambda node, trial: waited.append(node.key), waited=waited
    )
    toy, clock = toy_session(folder, [{}, {THRESHOLD: 0.2}][:trials], elsewhere=elsewhere), Clock()
    toy.session._beside._clock = clock
    return toy, clock


def started(toy: Toy) -> Assignment:
    assignment = toy.session.next_assignment()
    assert assignment
    return assignment


def at_the_implant(toy: Toy, clock: Clock) -> Assignment:
    first = started(toy)
    toy.session.updated(toy.running(first, "poison"), first.name)
    clock.seconds += LONG_SECONDS
    return first


def stages(toy: Toy, assignment: Assignment) -> list[str]:
    every = {stage.key: stage.stage for stage in toy.stages(assignment)}
    return [every[key] for key in assignment.only]


def side_record(toy: Toy, run: Assignment) -> TrialRecord:
    """Return the last record of a side run, well."""
    done = tuple(stage for stage in toy.stages(run) if stage.key in run.only)
    return run.record(State.DONE).model_copy(update={"stages": done})


def test_what_needs_only_the_clean_model_is_computed_beside_the_implant(tmp_path: Path) -> None:
    toy, clock = toy_of(tmp_path)
    first = at_the_implant(toy, clock)
    assert toy.session.side_run_ready
    assert toy.session.to_come(9) == 2, "a worker is kept for it"
    run = started(toy)
    assert (run.name, run.trial) == ("t0000+detect_clean", "t0000")
    assert stages(toy, run) == ["detect_clean", "suspect"]
    assert toy.session.next_assignment() is None, "nothing else is to be had"
    toy.session.ended(run.name, side_record(toy, run))
    found = [
        stage.model_copy(update={"reused": stage.stage in {"detect_clean", "suspect"}}) for stage in toy.stages(first)
    ]
    toy.session.ended(first.name, toy.done(first).model_copy(update={"stages": tuple(found)}))
    (record,) = read_records(toy.records)
    assert not any(stage.reused for stage in record.stages), "it is the trial's own work"
    assert started(toy).trial == "t0001"


def test_a_trial_that_comes_to_a_stage_while_it_is_computed_beside_it_waits_and_goes_on(tmp_path: Path) -> None:
    toy, clock = toy_of(tmp_path)
    first = at_the_implant(toy, clock)
    run = started(toy)
    met = toy.running(first, "implant").model_copy(
        update={"state": State.FAILED, "lost": True, "fault": "Waits", "waits_for": run.only[0]}
    )
    toy.session.ended(first.name, met)
    assert toy.session.next_assignment() is None
    toy.session.updated(side_record(toy, run), run.name)
    assert toy.session.awaited == set()
    toy.session.ended(run.name, side_record(toy, run))
    again = started(toy)
    assert (again.trial, again.only) == ("t0000", ())
    toy.session.ended(again.name, toy.done(again))
    (record,) = read_records(toy.records)
    assert (record.state, len(record.attempts)) == (State.DONE, 0)


@pytest.mark.parametrize("end", ["crashed", "failed", "put back"])
def test_what_a_side_run_does_not_manage_the_trial_does_itself(tmp_path: Path, end: str) -> None:
    toy, clock = toy_of(tmp_path)
    first = at_the_implant(toy, clock)
    run = started(toy)
    if end == "crashed":
        toy.session.crashed(run.name, "its process was killed")
    elif end == "failed":
        toy.session.ended(run.name, run.record(State.FAILED, "no memory").model_copy(update={"lost": True}))
    else:
        toy.session.put_back(run.name)
    assert not toy.session.side_run_ready, "it is not tried again"
    toy.session.ended(first.name, toy.done(first))
    assert toy.finish_all() == ["t0001"]
    assert {record.state for record in read_records(toy.records)} == {State.DONE}
    assert toy.session.finished


def test_nobody_needs_a_side_run_when_all_trials_have_ended(tmp_path: Path) -> None:
    toy, clock = toy_of(tmp_path, trials=1)
    first = at_the_implant(toy, clock)
    run = started(toy)
    assert not toy.session.is_over(run.name)
    toy.session.ended(first.name, toy.failed(first, "implant"))
    assert toy.session.is_over(run.name)
    assert not toy.session.is_over(first.name)


@pytest.mark.parametrize(("seconds", "leases"), [(LONG_SECONDS - 1, True), (LONG_SECONDS, False)])
def test_no_side_run_beside_short_stages_nor_where_a_stage_could_be_computed_twice(
    tmp_path: Path, seconds: float, leases: bool
) -> None:
    toy, clock = toy_of(tmp_path, leases)
    first = started(toy)
    toy.session.updated(toy.running(first, "poison"), first.name)
    clock.seconds += seconds
    assert toy.session.next_assignment() is None


def test_stages_of_the_victim_are_never_computed_beside_it(tmp_path: Path) -> None:
    toy, clock = toy_of(tmp_path)
    first = started(toy)
    clock.seconds += LONG_SECONDS
    assert toy.session.next_assignment() is None, "it is at `pretrain`, which all others need"
    toy.session.updated(toy.running(first, "pretrain"), first.name)
    clock.seconds += LONG_SECONDS
    assert toy.session.next_assignment() is None, "it is at `poison`, which the detector needs"
