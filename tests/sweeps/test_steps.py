"""What a worker reports together: stages that take next to no time, and none of them with a long one behind it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from toy_session import toy_session

from sweeps.backends.trainable import RECORD, WAITS, UbtTrainable
from sweeps.backends.work import Turns, Work
from ubt.trials.record import State, TrialRecord


def worker(folder: Path, long: threading.Event) -> Any:
    """Return a worker without Ray, at a trial whose third stage takes until it is let go on."""
    toy = toy_session(folder, [{}])
    assignment = toy.session.next_assignment()
    assert assignment

    def records() -> Iterator[TrialRecord]:
        yield toy.running(assignment, "pretrain")
        yield toy.running(assignment, "poison")
        long.wait(60)
        yield assignment.record(State.DONE)

    made: Any = object.__new__(UbtTrainable)
    made._work, made._turns, made._here = Work(), Turns(folder), {}
    made._assignment, made._records = assignment, records()
    made._stalled, made._unfit = False, None
    return made


def test_what_is_done_is_reported_before_a_stage_that_takes_long(tmp_path: Path) -> None:
    """Trials that needed it waited until the long one behind it was done, too."""
    long = threading.Event()
    made = worker(tmp_path, long)
    first = made.step()
    assert [stage.stage for stage in TrialRecord.model_validate_json(first[RECORD]).stages][-1] == "poison"
    assert made._work.under_way
    assert made._turns._held, "it computes, so it keeps its turn"
    long.set()
    last = made.step()
    assert WAITS not in last
    assert last["done"]
    assert not made._turns._held
