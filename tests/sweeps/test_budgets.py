"""Budgets: which trials are run, when no more are started, and how that is counted over resumes."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps.planning.layout import lay_out
from sweeps.scheduling.meter import Meter
from sweeps.search.budgeted import Limited
from sweeps.search.proposals import DesignProposer, Proposal
from sweeps.study.checks import check_study
from sweeps.study.config import StudyConfig
from tests.sweeps.toy_session import toy_session
from ubt.common.errors import UserError
from ubt.trials.budget import Budget, Spent
from ubt.trials.record import Attempt, State, TrialRecord

EPOCH = 1_700_000_000.0
RATIO = "defense.suspicious_ratio"
LAYOUT: list[dict[str, Any]] = [{RATIO: 0.01 * number} for number in range(1, 7)]


def at(seconds: float) -> str:
    return datetime.fromtimestamp(EPOCH + seconds, UTC).isoformat(timespec="milliseconds")


def timed(record: TrialRecord, start: float, seconds: float) -> TrialRecord:
    started = {"started_at": at(start), "seconds": seconds, "attempts": (Attempt(started_at=at(start)),)}
    return record.model_copy(update=started)


class TestTrials:
    @given(st.lists(st.sampled_from([None, 1, 2]), max_size=8), st.integers(1, 12), st.integers(1, 3))
    def test_are_the_first_ones_of_the_study(self, replicates: list[int | None], trials: int, seeds: int) -> None:
        """The same on any number of workers: it does not matter which ends first."""
        proposals = [Proposal(number, replicates=count) for number, count in enumerate(replicates)]
        all_trials = [(one.number, seed) for one in proposals for seed in range(one.replicates or seeds)]
        limited = Limited(DesignProposer(proposals), trials, seeds)
        found = list(iter(limited.propose, None))
        assert [(one.number, seed) for one in found for seed in range(one.replicates or seeds)] == all_trials[:trials]
        assert limited.exhausted

    def test_are_fewer_in_a_plan(self) -> None:
        grid = {"design": "grid", "space": {RATIO: [0.01, 0.02, 0.05]}, "budget": {"trials": 4}}
        study = StudyConfig.model_validate({"name": "toy", "search": grid, "seeds": [0, 1]})
        laid = lay_out(study)
        assert (study.trials, list(laid.trials)) == (4, ["t0000-s0", "t0000-s1", "t0001-s0", "t0001-s1"])
        assert "no trial is started once the budget is used up: 4 trials" in laid.notes


class TestTime:
    def test_once_used_up_nothing_more_is_started_and_what_runs_ends(self, tmp_path: Path) -> None:
        now = [EPOCH]
        meter = Meter(Budget(hours=1), 0, clock=lambda: now[0])
        toy = toy_session(tmp_path, LAYOUT, listeners=[meter])
        toy.session.used_up = meter.used_up
        for number in range(2):
            first = toy.session.next_assignment()
            assert first is not None
            toy.session.updated(timed(toy.running(first), number * 1500, 0))
            now[0] = EPOCH + (number + 1) * 1500
            if number == 0:
                toy.session.ended(first.trial, timed(toy.done(first), 0, 1500))
        now[0] = EPOCH + 3700
        assert toy.session.next_assignment() is None
        assert not toy.session.finished
        toy.session.ended(first.trial, timed(toy.done(first), 1500, 2300))
        assert (toy.session.finished, toy.session.all_done, meter.stopped) == (True, True, True)
        assert (toy.session.stopped, meter.told) == ("1.03 of 1 hours (reached)", "1.06 of 1 hours (reached)")

    def test_that_was_used_before_counts(self, tmp_path: Path) -> None:
        before = toy_session(tmp_path / "before", LAYOUT)
        first = before.session.next_assignment()
        assert first is not None
        known = timed(before.done(first), 0, 3000)
        for hours, left in ((0.5, 0), (1.0, 5)):
            meter = Meter(Budget(hours=hours), 0, [known], clock=lambda: EPOCH + 90_000)
            toy = toy_session(tmp_path / str(hours), LAYOUT, known=[known], listeners=[meter])
            toy.session.used_up = meter.used_up
            assert (len(toy.finish_all()), meter.stopped) == (left, left == 0)

    def test_is_not_used_up_where_nothing_is_left_to_run(self, tmp_path: Path) -> None:
        before = toy_session(tmp_path / "before", LAYOUT[:1])
        first = before.session.next_assignment()
        assert first is not None
        known = timed(before.done(first), 0, 3000)
        meter = Meter(Budget(hours=0.5), 0, [known])
        toy = toy_session(tmp_path / "again", LAYOUT[:1], known=[known], listeners=[meter])
        toy.session.used_up = meter.used_up
        assert toy.session.next_assignment() is None
        assert (toy.session.finished, toy.session.stopped, meter.stopped) == (True, "", False)

    def test_of_an_interrupted_trial_is_kept_when_it_runs_again(self, tmp_path: Path) -> None:
        before = toy_session(tmp_path / "before", LAYOUT)
        first = before.session.next_assignment()
        assert first is not None
        known = timed(before.running(first), 0, 1800).model_copy(update={"state": State.INTERRUPTED})
        toy = toy_session(tmp_path / "again", LAYOUT, known=[known])
        again = toy.session.next_assignment()
        assert again is not None
        assert again.trial == known.trial
        toy.session.ended(again.trial, timed(toy.done(again), 7200, 1800))
        meter = Meter(Budget(hours=9), 2, [known], clock=lambda: EPOCH + 9000)
        for now in (toy.running(again), toy.done(again)):
            attempts = (*known.attempts, Attempt(started_at=at(7200)))
            ended = attempts[0].model_copy(update={"ended_at": at(1800)})
            meter.updated(timed(now, 7200, 1800).model_copy(update={"attempts": (ended, attempts[1])}))
            assert meter.spent.gpu_hours == pytest.approx(2.0)
        written = TrialRecord.model_validate_json((toy.records / f"{again.trial}.json").read_text())
        assert Spent.of([written], 2).gpu_hours == pytest.approx(2.0)


@given(
    st.lists(st.tuples(st.integers(0, 500), st.integers(1, 300), st.booleans()), min_size=1, max_size=12),
    st.sampled_from([0.0, 0.5, 2.0]),
)
def test_a_meter_counts_as_the_records_say(trials: list[tuple[int, int, bool]], gpus: float) -> None:
    """However the records come: known from before or one by one, each several times."""
    tree = {"study": "toy", "number": 0, "seed": 0, "config": {}, "changes": {}}
    records = [
        timed(TrialRecord.model_validate({**tree, "trial": f"t{place}", "state": State.DONE}), start, seconds)
        for place, (start, seconds, _) in enumerate(trials)
    ]
    known = [record for record, (*_, before) in zip(records, trials, strict=True) if before]
    meter = Meter(Budget(trials=5), gpus, known)
    for record in records:
        if record not in known:
            meter.updated(record.model_copy(update={"state": State.RUNNING, "seconds": 0.0}))
            meter.updated(record)
            meter.updated(record)
    spent, told = meter.spent, Spent.of(records, gpus)
    assert (spent.trials, spent.hours) == (told.trials, pytest.approx(told.hours))
    assert spent.gpu_hours == pytest.approx(told.gpu_hours)


@pytest.mark.parametrize(
    ("search", "said"),
    [
        ({"design": "grid", "space": {RATIO: [0.01]}, "budget": {"gpu_hours": 3}}, "is of GPUs, and trials have none"),
        (
            {"design": "concat", "designs": [{"design": "grid", "space": {RATIO: [0.01]}, "budget": {"hours": 1}}]},
            "has a `budget` in one of its parts",
        ),
    ],
)
def test_a_budget_that_would_never_be_reached_is_a_mistake(search: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        check_study(StudyConfig.model_validate({"name": "toy", "search": search}), "toy.yaml")
