"""Who computes beside whom: locks of the operating system, here of several workers in one process."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweeps.backends.work import Turns


def test_trials_that_need_not_be_alone_compute_side_by_side(tmp_path: Path) -> None:
    one, other = Turns(tmp_path, ["0"]), Turns(tmp_path, ["0"])
    assert one.enter()
    assert other.enter()


@pytest.mark.parametrize("alone", ["node", "gpu"])
def test_one_that_is_to_be_alone_waits_for_those_beside_it_and_keeps_the_rest_out(tmp_path: Path, alone: str) -> None:
    inside, waiting, later = (Turns(tmp_path, ["0"]) for _ in range(3))
    assert inside.enter()
    assert not waiting.enter(alone)
    assert not later.enter(), "who comes later does not keep it waiting"
    inside.leave()
    assert not inside.enter()
    assert waiting.enter(alone)
    assert waiting.enter(alone), "from step to step"
    assert not later.enter()
    waiting.leave()
    assert later.enter()
    assert inside.enter()


def test_alone_on_a_gpu_is_not_alone_on_the_node(tmp_path: Path) -> None:
    alone, beside, elsewhere = Turns(tmp_path, ["0"]), Turns(tmp_path, ["0"]), Turns(tmp_path, ["1"])
    assert alone.enter("gpu")
    assert elsewhere.enter()
    assert not beside.enter()


def test_two_that_are_to_be_alone_take_turns(tmp_path: Path) -> None:
    on_gpu, on_node = Turns(tmp_path, ["0"]), Turns(tmp_path, ["0"])
    assert on_gpu.enter("gpu")
    assert not on_node.enter("node")
    assert on_gpu.enter("gpu")
    on_gpu.leave()
    assert on_node.enter("node")
    assert not on_gpu.enter("gpu")
    on_node.leave()
    assert on_gpu.enter("gpu")


def test_a_worker_without_gpus_is_alone_on_its_node(tmp_path: Path) -> None:
    one, other = Turns(tmp_path), Turns(tmp_path)
    assert one.enter("gpu")
    assert not other.enter()


def test_a_node_without_a_place_for_locks_has_no_turns(tmp_path: Path) -> None:
    assert Turns(tmp_path / "missing").enter("node")
    assert Turns(tmp_path / "missing").enter()
