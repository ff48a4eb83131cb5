"""The time left that a progress line says, over sweeps in which trials take the time that they are made to take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from toy_costs import calibrated, setup, study

from sweeps.planning.costs import chained_seconds
from sweeps.planning.plan import Forecast, plan_study
from sweeps.planning.time_left import TimeLeft
from sweeps.planning.trials import TrialPlanner
from sweeps.scheduling.stage_scheduler import StageScheduler
from sweeps.search.proposals import Proposal
from sweeps.study.config import StudyConfig
from ubt.artifacts.manifest import ArtifactManifest
from ubt.artifacts.store import ArtifactStore
from ubt.trials.record import Attempt, EpochRecord, StageRecord, State, TrialRecord

GRID = {"design": "grid", "space": {"defense.suspicious_ratio": [0.05, 0.1, 0.2], "defense.overfit_epochs": [1, 2, 4]}}


class Simulated:
    """A sweep on some workers whose stages take `slower` times what is planned; every stage is told when it ends."""

    def __init__(self, given: StudyConfig, workers: int, slower: float = 1.0, known: bool = True) -> None:
        self.now = 0.0
        forecast = Forecast.of(given)
        self._true = Forecast.of(given).model.pieces
        self.left = TimeLeft(
            forecast, TrialPlanner(given, given.store or ""), len(given.seeds), workers, lambda: self.now
        )
        self._given, self._workers, self._slower = given, workers, slower
        self.told: list[tuple[float, float | None]] = []
        """When, and what was left then."""

    def run(self) -> None:
        """Run all trials, one stage after the other on each worker."""
        planner = TrialPlanner(self._given, self._given.store or "")
        planned = {one.name: one for one in (planner(proposal, 0) for proposal in self._given.proposals())}
        scheduler: StageScheduler[str] = StageScheduler()
        for name, one in planned.items():
            scheduler.add(name, [piece for node in one.pipeline for piece in one.pieces(node)])
        stages: dict[str, list[StageRecord]] = {}
        due: dict[str, float] = {}
        done: dict[str, float] = {}
        while True:
            while len(due) < self._workers and (name := scheduler.start()):
                stages[name], due[name] = [], self.now
                self._note(planned[name].assignment.record(State.RUNNING))
            if not due:
                return
            name = min(due, key=lambda one: (due[one], one))
            self.now = max(self.now, due[name])
            one, at = planned[name], len(stages[name])
            if at:
                scheduler_record = stages[name][-1]
                done[scheduler_record.key] = scheduler_record.seconds
            running = at < len(one.pipeline)
            state = State.RUNNING if running else State.DONE
            record = one.assignment.record(state).model_copy(
                update={
                    "stages": tuple(stages[name]),
                    "seconds": sum(stage.spent_seconds for stage in stages[name]),
                    "attempts": (Attempt(),),
                }
            )
            self._note(record)
            for stage, node in zip(stages[name], one.pipeline, strict=False):
                for piece in one.done_pieces(node, stage):
                    scheduler.finished(name, piece)
            if not running:
                scheduler.ended(name)
                del due[name]
                continue
            node = one.pipeline[at]
            whole = self._slower * (self._true[node.key].seconds or 0.0)
            before = max(
                (done[node.at(epoch).key] for epoch in range(1, node.epochs) if node.at(epoch).key in done), default=0
            )
            spent = 0.0 if node.key in done else whole - before
            epochs = tuple(EpochRecord(epoch=epoch + 1, seconds=0) for epoch in range(node.epochs))
            stages[name].append(
                StageRecord(
                    stage=node.spec.name,
                    key=node.key,
                    reused=node.key in done,
                    seconds=whole,
                    spent_seconds=spent,
                    epochs=epochs,
                )
            )
            due[name] = self.now + spent

    def _note(self, record: TrialRecord) -> None:
        self.left.note(record)
        self.told.append((self.now, self.left.seconds))


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("slower", [1.0, 2.0, 0.5])
def test_what_is_said_comes_true(workers: int, slower: float, tmp_path: Path) -> None:
    calibrated(tmp_path, setup(), factor=50)
    sweep = Simulated(study(tmp_path, search=GRID), workers, slower)
    sweep.run()
    wall = sweep.now
    assert sweep.told[-1] == (wall, 0)
    planned = plan_study(study(tmp_path, search=GRID), workers).wall_seconds
    assert planned is not None
    assert sweep.told[0][1] == pytest.approx(planned)
    assert wall == pytest.approx(slower * planned, rel=0.25), "the scheduler holds trials back that share a stage"
    learnt = [(at, left) for at, left in sweep.told if at > 0.4 * wall]
    for at, left in learnt:
        assert left is not None
        assert left == pytest.approx(wall - at, rel=0.3, abs=0.1 * wall)


def test_it_does_not_jump(tmp_path: Path) -> None:
    """The pace of trials that ended said 0:01, and then 0:49, where the victim's time was not counted."""
    calibrated(tmp_path, setup(), factor=50)
    sweep = Simulated(study(tmp_path, search=GRID), workers=2)
    sweep.run()
    for (earlier, before), (later, after) in zip(sweep.told, sweep.told[1:], strict=False):
        assert before is not None
        assert after is not None
        assert after <= before + 0.05 * sweep.now, (earlier, later)
        assert before - after <= (later - earlier) + 0.15 * sweep.now


def test_what_nothing_is_known_of_is_unknown_until_it_has_run_once(tmp_path: Path) -> None:
    given = study(tmp_path, search=GRID)
    calibrated(tmp_path / "elsewhere", setup(), factor=50)
    sweep = Simulated(given, workers=1)
    sweep._true = Forecast.of(study(tmp_path / "elsewhere", search=GRID)).model.pieces
    sweep._true = dict(zip(Forecast.of(given).model.pieces, sweep._true.values(), strict=True))
    sweep.run()
    first_trial = sum(1 for _ in given.trial({}).defense.stages) + 5
    assert all(left is None for _, left in sweep.told[: first_trial - 1])
    known = [(at, left) for at, left in sweep.told[first_trial + 1 :]]
    assert known
    for at, left in known:
        assert left is not None
        assert left == pytest.approx(sweep.now - at, rel=0.35, abs=0.1 * sweep.now)


def test_a_stage_that_takes_longer_than_planned_never_leaves_nothing(tmp_path: Path) -> None:
    calibrated(tmp_path, setup(), factor=50)
    sweep = Simulated(study(tmp_path, search={"design": "grid"}), workers=1)
    assignment = TrialPlanner(study(tmp_path, search={"design": "grid"}), str(tmp_path))(
        study(tmp_path).proposals()[0], 0
    ).assignment
    sweep.left.note(assignment.record(State.RUNNING))
    for sweep.now in (10, 1e3, 1e5, 1e7):
        left = sweep.left.seconds
        assert left is not None
        assert left > 0


def record(given: StudyConfig, changes: dict[str, Any], number: int, state: State) -> TrialRecord:
    planned = TrialPlanner(given, given.store or "")(Proposal(number, changes), 0)
    stages = [
        StageRecord(stage=node.spec.name, key=node.key, reused=number > 0 and node.spec.sees_poison, seconds=1.0)
        for node in planned.pipeline
    ]
    return planned.assignment.record(state).model_copy(
        update={"stages": tuple(stages) if state.ended else (), "attempts": (Attempt(),)}
    )


def test_a_configuration_that_results_chose_takes_the_place_of_a_stand_in(tmp_path: Path) -> None:
    calibrated(tmp_path, setup(), factor=50)
    search = {"design": "optuna", "space": {"defense.token_threshold": {"low": 0.01, "high": 0.5}}, "n_trials": 5}
    given = study(tmp_path, search=search)
    left = TimeLeft(Forecast.of(given), TrialPlanner(given, str(tmp_path)), 1, 1, lambda: float(clock.pop()))
    clock = list(range(1000, 0, -100))
    found = [left.seconds or 0.0]
    for number in range(5):
        changes = {"defense.token_threshold": 0.2 + number / 100} if number else {}
        left.note(record(given, changes, number, State.DONE))
        found.append(left.seconds or 0.0)
    assert found[-1] == 0
    assert found == sorted(found, reverse=True)
    assert len(set(found)) == len(found)


def everything_stored(given: StudyConfig, proposals: list[dict[str, Any]]) -> None:
    """Put every stage of these configurations into the study's store."""
    assert given.store
    for number, changes in enumerate(proposals):
        _, pipeline = TrialPlanner(given, given.store).built(Proposal(number, changes), 0)
        for node in pipeline:
            described = ArtifactManifest(
                stage=node.spec.name,
                key=node.key,
                version=1,
                seed=given.seeds[0],
                settings=node.settings,
                inputs={},
                seconds=5.0,
            )
            ArtifactStore(given.store).publish(described, {"tensors": b"x"})


def reused(given: StudyConfig, changes: dict[str, Any], number: int, seconds: float) -> TrialRecord:
    """Return the record of a trial that has found all its stages in the store."""
    done = record(given, changes, number, State.DONE)
    stages = tuple(stage.model_copy(update={"reused": True}) for stage in done.stages)
    return done.model_copy(update={"stages": stages, "seconds": seconds})


def test_the_start_of_workers_is_not_taken_for_what_every_trial_takes(tmp_path: Path) -> None:
    """Trials that found everything in the store took a moment, but the first ones waited for imports and the data."""
    given = study(tmp_path, search=GRID)
    calibrated(tmp_path, setup(), factor=50)
    changes = [dict(proposal.changes) for proposal in given.proposals()]
    everything_stored(given, changes)
    left = TimeLeft(Forecast.of(given), TrialPlanner(given, str(tmp_path)), 1, 2, lambda: float(next(clock)))
    clock = iter(range(0, 10_000, 100))
    assert left.seconds == 0
    for number in (0, 1):
        left.note(record(given, changes[number], number, State.RUNNING))
    for number in (0, 1):
        left.note(reused(given, changes[number], number, seconds=9.0))
        assert left.seconds == 0
    for number in (2, 3):
        left.note(record(given, changes[number], number, State.RUNNING))
        left.note(reused(given, changes[number], number, seconds=0.2))
    assert left.seconds == pytest.approx((len(changes) - 4) * 0.2 / 2)


def test_a_search_that_asks_for_what_the_store_has_is_soon_expected_to_go_on_so(tmp_path: Path) -> None:
    search = {"design": "optuna", "space": {"defense.overfit_epochs": {"low": 1, "high": 900}}, "n_trials": 12}
    given = study(tmp_path, search=search)
    calibrated(tmp_path, setup(), factor=50)
    changes = [{}, *({"defense.overfit_epochs": 3 + number} for number in range(11))]
    everything_stored(given, changes)
    left = TimeLeft(Forecast.of(given), TrialPlanner(given, str(tmp_path)), 1, 1, lambda: float(next(clock)))
    clock = iter(range(0, 1_000_000, 10_000))
    at_first, found = left.seconds, list[float]()
    for number, one in enumerate(changes):
        left.note(record(given, one, number, State.RUNNING))
        left.note(reused(given, one, number, seconds=0.0))
        found.append(left.seconds or 0.0)
    assert at_first is not None
    assert at_first > 1000, "the stand-ins would take as much"
    assert found[5] < 0.1 * at_first
    assert found[-1] == 0


@pytest.mark.parametrize("ended", range(1, 12))
def test_one_that_looks_later_does_not_take_what_was_computed_for_what_the_search_does_not_need(
    tmp_path: Path, ended: int
) -> None:
    search = {"design": "optuna", "space": {"defense.overfit_epochs": {"low": 1, "high": 900}}, "n_trials": 12}
    given = study(tmp_path, search=search)
    calibrated(tmp_path, setup(), factor=50)
    changes = [{}, *({"defense.overfit_epochs": 3 + number} for number in range(ended - 1))]
    everything_stored(given, changes)  # by the trials themselves
    forecast = Forecast.of(given)
    left = TimeLeft(forecast, TrialPlanner(given, str(tmp_path)), 1, 1, lambda: 0.0)
    for number, one in enumerate(changes):
        left.note(record(given, one, number, State.DONE))
    keys = {node.key for _, pipeline in forecast.laid.imagined[ended - 1 :] for node in pipeline}
    needed = chained_seconds([forecast.model.pieces[key] for key in keys], forecast.stored)
    assert left.seconds == pytest.approx(needed), "what the stand-ins that are left would take"
