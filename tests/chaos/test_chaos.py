"""A short round of faults, and how rounds are drawn; `make chaos` plays as many as one likes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from chaos import undisturbed
from faults import FAULTS
from rounds import Moment, Plan, plan, play
from services import services

PLACE = {"address": "local", "store": "folder", "tracking": "sqlite", "search": "grid"}
SHORT = Plan(
    1,
    PLACE,
    (
        Moment("kill -9 of a worker", 4, 0.3),
        Moment("artifacts are damaged during use", 10, 0.0),
        Moment("SIGTERM once", 16, 0.1),
    ),
)


@pytest.mark.clusters
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="the processes of a round are found in /proc")
def test_nothing_is_lost_wrong_or_done_twice_in_a_short_round(tmp_path: Path) -> None:
    with services(tmp_path) as servers:
        expected = undisturbed(tmp_path / "undisturbed", servers, ("grid",))
        outcome = play(SHORT, tmp_path / "round", servers, expected)
    assert outcome.problems == []
    assert outcome.done == [moment.fault for moment in SHORT.moments]


def test_a_seed_stands_for_one_round() -> None:
    assert plan(7) == plan(7) != plan(8)


def test_every_kind_of_fault_is_drawn_sometimes() -> None:
    drawn = Counter(moment.fault for seed in range(400) for moment in plan(seed).moments)
    needing_root = {name for name, fault in FAULTS.items() if fault.needs & {"mounts", "hosts"}}
    assert FAULTS.keys() - needing_root <= drawn.keys()
    assert min(drawn.values()) >= 8


def test_a_round_has_only_faults_that_can_happen_in_its_place() -> None:
    inline = [plan(seed, where={**PLACE, "address": "inline"}) for seed in range(100)]
    names = {moment.fault for each in inline for moment in each.moments}
    assert "kill -9 of the driver" in names
    assert not {name for name in names if FAULTS[name].needs & {"ray", "server", "s3"}}
