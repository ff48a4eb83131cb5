"""An autoscaler adds nodes for trials that could start, and lets them go when only the tail is left."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from grows import NODES, TRIALS, measure
from hosts import why_not

from ubt.trials.record import State

pytestmark = [pytest.mark.clusters, pytest.mark.skipif(bool(why_not()), reason=why_not())]


def test_nodes_come_for_trials_that_could_start_and_go_when_fewer_are_left(tmp_path: Path) -> None:
    found = measure(tmp_path)
    assert (found.status, Counter(record.state for record in found.records)) == (0, {State.DONE: TRIALS}), found.output
    computed = Counter(stage.key for record in found.records for stage in record.stages if not stage.reused)
    assert set(computed.values()) == {1}
    alone = found.first(1)
    assert found.first(NODES) > found.victim_done, "one node is enough for the stages that all trials need"
    assert alone < found.first(NODES) < found.first(1, found.tail) < found.ended
