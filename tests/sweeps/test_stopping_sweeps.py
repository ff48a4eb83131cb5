"""Stopping in a sweep: what each trial is compared with, in which step trials begin, and what the search is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest
from toy_session import ToyPlanner, ToyProposer, rates

from sweeps.run.folder import new_run
from sweeps.run.launch import run_study
from sweeps.scheduling.outcomes import outcome_over_seeds
from sweeps.scheduling.session import Session
from sweeps.scheduling.stage_scheduler import StageScheduler
from sweeps.search.lagged import Lagged
from sweeps.search.proposals import Changes, Outcome, Proposal
from sweeps.study.config import StudyConfig
from sweeps.study.loading import load_study
from ubt.common.errors import UserError
from ubt.common.exits import Exit
from ubt.engine.graph import build_pipeline
from ubt.trials.assignment import Assignment
from ubt.trials.config import TrialConfig
from ubt.trials.record import EpochRecord, StageRecord, State, TrialRecord, read_records
from ubt.trials.stopping import Pruned, Stopping, StopRule, judged_epochs

STOPPING = Stopping(grace_epochs=1, rung_spacing=2, ca_floor=None, lag=3)
EPOCHS = 5
RATE = "defense.unlearn_learning_rate"


class Planner(ToyPlanner):
    """Plans trials that may be stopped."""

    def __call__(self, proposal: Proposal, position: int):
        planned = super().__call__(proposal, position)
        rule = StopRule(settings=STOPPING, stage="unlearn")
        return type(planned)(planned.assignment.model_copy(update={"stopping": rule}), planned.pipeline)


def layout(count: int) -> list[Changes]:
    return [{RATE: 1e-4 * (1 + at), "defense.unlearn_epochs": EPOCHS} for at in range(count)]


def epoch_rates(assignment: Assignment) -> list[EpochRecord]:
    """Return what a trial measures if it is not stopped: a function of its number and seed alone."""
    random = Random(assignment.number)
    asr, ca = random.random(), random.random()
    return [EpochRecord(epoch=at, seconds=1, val=rates(asr * 0.8**at, ca * 0.95**at)) for at in range(1, EPOCHS + 1)]


def run(assignment: Assignment) -> TrialRecord:
    """Run a trial as a worker does: to its end, or to where its rule ends it."""
    measured = epoch_rates(assignment)
    record = assignment.record(State.RUNNING).model_copy(update={"poisoned_val": rates(0.99, 1.0)})
    found = assignment.stopping.first_stop(judged_epochs(measured, "lowest_asr"), EPOCHS, 1.0)
    kept = tuple(measured[: found.epoch] if found else measured)
    pipeline = build_pipeline(TrialConfig.model_validate(assignment.config), assignment.seed, assignment.data_key)
    stages = [StageRecord(stage=one.spec.name, key=one.key, reused=False, seconds=1) for one in pipeline]
    at = next(place for place, one in enumerate(stages) if one.stage == "unlearn")
    stages[at] = stages[at].model_copy(update={"epochs": kept, "complete": found is None})
    if found:
        ended = {"state": State.PRUNED, "pruned": found, "stages": tuple(stages[: at + 1])}
        return record.model_copy(update=ended)
    return record.model_copy(update={"stages": tuple(stages), "state": State.DONE, "val": measured[-1].val})


@dataclass
class Swept:
    """What came of a sweep."""

    ended: dict[str, TrialRecord]
    told: list[tuple[int, Outcome]]

    @property
    def stops(self) -> dict[str, tuple[State, int | None]]:
        return {name: (one.state, one.pruned.epoch if one.pruned else None) for name, one in sorted(self.ended.items())}


def sweep(folder: Path, workers: int, order: Random, replicates: int = 1, known: Sequence[TrialRecord] = ()) -> Swept:
    """Run twenty configurations on some workers that end in any order."""
    toy = ToyProposer(layout(20))
    session = Session(
        Lagged(toy, STOPPING.lag or 0), Planner(replicates), replicates, StageScheduler(), folder, list(known)
    )
    running: list[Assignment] = []
    ended: dict[str, TrialRecord] = {}
    while True:
        while len(running) < workers and (assignment := session.next_assignment()) is not None:
            running.append(assignment)
        if not running:
            return Swept(ended, toy.told)
        assignment = running.pop(order.randrange(len(running)))
        ended[assignment.trial] = run(assignment)
        session.ended(assignment.trial, ended[assignment.trial])


@pytest.mark.parametrize("replicates", [1, 2])
def test_the_same_trials_end_at_the_same_epochs_on_any_number_of_workers(tmp_path: Path, replicates: int) -> None:
    one = sweep(tmp_path / "one", 1, Random(0), replicates)
    assert State.PRUNED in {record.state for record in one.ended.values()}
    for workers in (2, 3, 8):
        many = sweep(tmp_path / str(workers), workers, Random(workers), replicates)
        assert many.stops == one.stops
        assert sorted(many.told) == sorted(one.told)


def test_a_sweep_that_goes_on_stops_the_same_trials(tmp_path: Path) -> None:
    whole = sweep(tmp_path / "whole", 2, Random(1))
    half = [record for record in whole.ended.values() if record.number < 9]
    rest = sweep(tmp_path / "rest", 3, Random(2), known=half)
    before = {one.trial for one in half}
    assert not before & rest.ended.keys()
    assert rest.stops == {name: stop for name, stop in whole.stops.items() if name not in before}
    assert State.PRUNED in {one.state for one in rest.ended.values()}


def test_a_trial_is_compared_with_those_up_to_a_lag_before_it_of_its_own_seed(tmp_path: Path) -> None:
    toy = ToyProposer(layout(5))
    session = Session(Lagged(toy, 3), Planner(2), 2, StageScheduler(), tmp_path)
    assignments: dict[str, Assignment] = {}
    while (assignment := session.next_assignment()) is not None:
        assignments[assignment.trial] = assignment
        session.ended(assignment.trial, run(assignment))
    first = {seed: epoch_rates(assignments[f"t0000-s{seed}"])[0].val for seed in (0, 1)}
    second = {seed: epoch_rates(assignments[f"t0001-s{seed}"])[0].val for seed in (0, 1)}
    for seed in (0, 1):
        assert not assignments[f"t0002-s{seed}"].stopping.peers[1]
        peers = assignments[f"t0004-s{seed}"].stopping.peers[1]
        assert peers == tuple((one[seed].asr, one[seed].ca) for one in (first, second))


def test_configurations_begin_when_those_up_to_a_lag_before_them_have_ended() -> None:
    toy = ToyProposer(layout(6))
    lagged = Lagged(toy, 2)
    first, second = lagged.propose(), lagged.propose()
    assert lagged.propose() is None
    lagged.tell(second, Outcome((0.1, 0.9)))
    assert lagged.propose() is None  # the first one has not ended
    lagged.tell(first, Outcome((0.2, 0.9)))
    assert (lagged.propose().number, lagged.propose().number, lagged.propose()) == (2, 3, None)
    assert not lagged.exhausted
    assert [number for number, _ in toy.told] == [1, 0]


def epochs(*found: tuple[float, float]) -> tuple[StageRecord, ...]:
    judged = tuple(EpochRecord(epoch=at, seconds=1, val=rates(*one)) for at, one in enumerate(found, 1))
    return (StageRecord(stage="unlearn", key="u", reused=False, seconds=1, epochs=judged),)


def record(state: State, *found: tuple[float, float], poisoned_ca: float = 0.8) -> TrialRecord:
    pruned = Pruned(stage="unlearn", epoch=len(found), epochs=EPOCHS, by="rank", settings=STOPPING, choice="lowest_asr")
    about = {"pruned": pruned if state is State.PRUNED else None, "val": rates(*found[-1])}
    about |= {"val": None} if state is State.PRUNED else {}
    base = TrialRecord(study="s", trial="t", number=0, seed=0, config={}, changes={}, state=state)
    return base.model_copy(update={**about, "stages": epochs(*found), "poisoned_val": rates(0.9, poisoned_ca)})


def test_the_search_is_told_the_epoch_that_the_choice_would_take_of_a_trial_that_was_stopped() -> None:
    stopped = record(State.PRUNED, (0.5, 0.79), (0.25, 0.785), (0.125, 0.5))
    told = outcome_over_seeds([stopped], "lowest_asr", 0.02)
    assert told.values == (0.25, 0.785)
    assert told.ca_lost == pytest.approx(0.015)


def test_of_several_seeds_it_is_told_means_after_an_epoch_that_all_have_measured() -> None:
    whole = record(State.DONE, (0.5, 0.8), (0.25, 0.79), (0.0, 0.79))
    stopped = record(State.PRUNED, (0.75, 0.8), (0.5, 0.79))
    told = outcome_over_seeds([whole, stopped], "lowest_asr", 0.02)
    assert told.values == (0.375, 0.79)
    failed = record(State.FAILED, (0.5, 0.8)).model_copy(update={"fault": "StageFault"})
    assert outcome_over_seeds([whole, failed, stopped], "lowest_asr", 0.02).values is None


def test_a_trial_stopped_without_what_the_rule_looks_at_is_a_result_without_rates() -> None:
    stopped = record(State.PRUNED, (0.5, 0.79))
    assert outcome_over_seeds([stopped], "trigger_free", 0.02) == Outcome(None, ruled_out=True)


def test_a_trial_that_other_settings_have_stopped_is_run_again(tmp_path: Path) -> None:
    planned = Planner()(Proposal(0, layout(1)[0]), 0)
    stages = tuple(
        StageRecord(stage=node.spec.name, key=node.key, reused=False, seconds=1) for node in planned.pipeline[:-1]
    )
    stopped = record(State.PRUNED, (0.5, 0.8))
    answer = planned.assignment.record(State.PRUNED).model_copy(update={"pruned": stopped.pruned, "stages": stages})
    assert planned.is_answered_by(answer)
    other = Pruned.model_validate({**stopped.pruned.model_dump(), "settings": {"grace_epochs": 3}})
    assert not planned.is_answered_by(answer.model_copy(update={"pruned": other}))
    never = type(planned)(planned.assignment.model_copy(update={"stopping": None}), planned.pipeline)
    assert not never.is_answered_by(answer)


def load(*assignments: str) -> StudyConfig:
    return load_study("smoke", list(assignments))


def test_the_lag_is_that_of_the_search_or_follows_from_the_workers_and_a_run_keeps_it() -> None:
    adaptive = load("search.stopping={}").search.for_workers(5)
    assert adaptive.lag == adaptive.stopping.lag == 10
    grid = {"design": "grid", "space": {"defense.overfit_epochs": [1, 2]}, "stopping": {}}
    designed = StudyConfig.model_validate({"name": "s", "search": grid}).search
    begun = designed.for_workers(3)
    assert begun.stopping.lag == 6
    assert designed.as_begun(begun.as_json(), extend=False).for_workers(1) == begun
    assert load().search.for_workers(2).stopping is None


@pytest.mark.parametrize(
    ("assignments", "where", "message"),
    [
        (["search={design: leave_one_out, stopping: {}}"], "search.stopping", "effects are read off trials"),
        (
            ["search={design: concat, designs: [{design: grid, stopping: {}}]}"],
            "search",
            "has `stopping` in one of its parts",
        ),
        (["search={design: grid, stopping: {}}", "victim.attack=null"], "victim.attack", "there is no ASR by which"),
    ],
)
def test_a_study_whose_trials_cannot_be_stopped_is_refused(assignments: list[str], where: str, message: str) -> None:
    with pytest.raises(UserError) as refused:
        load(*assignments)
    assert any(one.where.endswith(where) and message in one.message for one in refused.value.problems)


def test_records_of_trials_that_were_stopped_are_read_as_they_were_written(tmp_path: Path) -> None:
    swept = sweep(tmp_path, 1, Random(0))
    assert {one.trial: one.pruned for one in read_records(tmp_path)} == {
        name: one.pruned for name, one in swept.ended.items()
    }


@pytest.mark.slow
def test_a_real_sweep_stops_trials_and_reports_them(tmp_path: Path) -> None:
    """`smoke` in this process, with models that classify nothing: each is as bad as the first, and no worse."""
    stopping = "search.stopping={grace_epochs: 1, equals: crowding, ca_floor: null, lag: 1}"
    study = load(f"store={tmp_path}/store", stopping, "defense.unlearn_epochs=3", "tracking.enabled=false")
    ends = [run_study(study, new_run(tmp_path / "runs", study.name), "inline") for _ in range(2)]
    first, again = (read_records(end.run.records) for end in ends)
    assert {one.state for one in first} == {State.DONE, State.PRUNED}
    assert all(one.pruned and len(one.stages[-1].epochs) == one.pruned.epoch for one in first if one.val is None)
    # The second one finds all of it in the store, and ends the same trials with the same rates.
    assert [(one.state, one.reason, one.pruned) for one in again] == [
        (one.state, one.reason, one.pruned) for one in first
    ]
    assert [one.val for one in again] == [one.val for one in first]
    assert ends[0].status is Exit.DONE
    assert ends[0].summary.stopped.trials == sum(one.state is State.PRUNED for one in first)
