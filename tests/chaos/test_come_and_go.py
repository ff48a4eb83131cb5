"""Hosts that join and leave while a sweep runs are used as long as they are there, and no stage is computed twice."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from come_and_go import measure
from hosts import why_not

from ubt.trials.record import State

TRIALS = 24

pytestmark = [pytest.mark.clusters, pytest.mark.skipif(bool(why_not()), reason=why_not())]


def test_a_host_that_joins_gets_trials_and_one_that_is_announced_to_leave_gives_its_own_back(tmp_path: Path) -> None:
    found = measure(tmp_path, TRIALS, 4.0, notice_seconds=20.0, patient=True)
    assert (found.status, Counter(record.state for record in found.records)) == (0, {State.DONE: TRIALS}), found.output
    computed = Counter(stage.key for record in found.records for stage in record.stages if not stage.reused)
    assert set(computed.values()) == {1}
    by_host = Counter(stage.node.split()[0] for stage in found.stages if stage.stage == "wait")
    assert min(by_host.values()) > 1, by_host
    assert set(by_host) == {"host-1", "host-2", "host-3"}
    assert "host-2" in found.output
    assert "leaves the cluster" in found.output
    ended_by = {each.ended_by.partition(":")[0] for record in found.records for each in record.attempts[:-1]}
    assert ended_by <= {"NodeLeft"}, "its stage was done when it was gone"
