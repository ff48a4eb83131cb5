"""What records say was spent, and which limits of a budget are reached."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ubt.trials.budget import Budget, Spent, ended_at, length, merged, spans_of
from ubt.trials.record import Attempt, State, TrialRecord

EPOCH = 1_700_000_000.0
SPANS = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)).map(lambda one: (one[0], one[0] + one[1])))


def at(seconds: float) -> str:
    return datetime.fromtimestamp(EPOCH + seconds, UTC).isoformat(timespec="milliseconds")


def record(trial: str, start: float, seconds: float, state: State = State.DONE, **fields: Any) -> TrialRecord:
    tree = {"study": "toy", "trial": trial, "number": 0, "seed": 0, "config": {}, "changes": {}, "state": state}
    started = {"started_at": at(start), "seconds": seconds, "attempts": [Attempt(started_at=at(start))]}
    return TrialRecord.model_validate({**tree, **started, **fields})


@given(SPANS)
def test_time_in_which_several_run_counts_once(spans: list[tuple[int, int]]) -> None:
    seconds = {second for start, end in spans for second in range(start, end)}
    found = merged(spans)
    assert length(found) == len(seconds)
    assert all(end < start for (_, end), (start, _) in pairwise(found)), "apart, in order"
    assert merged([*found, *spans]) == found


class TestSpent:
    def test_counts_hours_once_and_gpu_hours_for_each_trial(self) -> None:
        spent = Spent.of([record("a", 0, 3600), record("b", 1800, 3600), record("c", 36_000, 1800)], gpus=0.5)
        assert (spent.trials, spent.hours, spent.gpu_hours) == (3, pytest.approx(2.0), pytest.approx(1.25))

    def test_counts_every_start_of_a_trial(self) -> None:
        """An interrupted one has spent its time, though it is yet to be run."""
        starts = [Attempt(started_at=at(0), ended_at=at(1800)), Attempt(started_at=at(7200))]
        one = record("a", 7200, 1800, attempts=starts)
        assert Spent.of([one], 1).gpu_hours == pytest.approx(1.0)
        interrupted = Spent.of([record("a", 0, 1800, State.INTERRUPTED)], 1)
        assert (interrupted.trials, interrupted.hours) == (0, pytest.approx(0.5))

    def test_of_a_trial_that_runs_counts_until_now_if_that_is_said(self) -> None:
        running = record("a", 0, 60, State.RUNNING)
        assert spans_of(running) == [(EPOCH, EPOCH + 60)]
        assert spans_of(running, EPOCH + 900) == [(EPOCH, EPOCH + 900)]

    def test_takes_old_records_without_attempts_and_odd_times(self) -> None:
        assert spans_of(record("a", 0, 60, attempts=[])) == [(EPOCH, EPOCH + 60)]
        assert spans_of(record("a", 0, 60, attempts=[], started_at="yesterday")) == []
        assert ended_at(record("a", 0, 60)) == at(60)


class TestBudget:
    def test_is_reached_by_whichever_comes_first(self) -> None:
        budget = Budget(trials=10, hours=2, gpu_hours=4, price=9, price_per_gpu_hour=3)
        assert budget.reached(Spent(3, 1.9, 2.9)) == ()
        assert budget.reached(Spent(3, 2.0, 2.9)) == ("hours",)
        assert budget.reached(Spent(10, 1.0, 3.0)) == ("trials", "price")

    def test_says_what_is_used_of_it(self) -> None:
        budget = Budget(trials=1000, hours=2, price=9, price_per_gpu_hour=3)
        assert budget.text() == "1,000 trials, 2 hours, a price of 9"
        assert Budget(trials=1, hours=0.5, gpu_hours=1).text() == "1 trial, 0.5 hours, 1 GPU-hour"
        told = budget.told(Spent(12, 2.004, 1.0))
        assert told == "12 of 1,000 trials, 2.00 of 2 hours (reached), a price of 3.00 of 9"

    @pytest.mark.parametrize(
        ("given", "message"),
        [({}, "at least one of"), ({"price": 3}, "belong together"), ({"hours": 0}, "greater than 0")],
    )
    def test_that_says_nothing_is_a_mistake(self, given: dict[str, Any], message: str) -> None:
        with pytest.raises(ValidationError, match=message):
            Budget.model_validate(given)
