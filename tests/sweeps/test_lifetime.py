"""How this process leaves Ray."""

from __future__ import annotations

import os
from threading import Event
from types import SimpleNamespace

import pytest
import ray
from ray._private import worker
from ray._raylet import CoreWorker

from sweeps.backends.lifetime import Leaving, leave_ray, outlive_raylet, stop_ray


class CoreWorkerInC:
    """Ends this process if a reference is freed once it is gone; here it only notes what is asked of it."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def shutdown_driver(self) -> None:
        self.asked.append("left")

    def remove_object_ref_reference(self, reference: object) -> None:
        self.asked.append("a result is freed")

    def remove_actor_handle_reference(self, actor: object) -> None:
        self.asked.append("an actor is freed")


def test_what_is_freed_while_this_process_leaves_stays_away_from_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    core = CoreWorkerInC()
    joined = SimpleNamespace(core_worker=core)

    def shutdown() -> None:
        joined.core_worker.remove_object_ref_reference(object())  # what the main thread does meanwhile
        joined.core_worker.remove_actor_handle_reference(object())
        joined.core_worker.shutdown_driver()

    monkeypatch.setattr(worker, "global_worker", joined)
    monkeypatch.setattr(worker, "_global_node", None)
    monkeypatch.setattr(ray, "shutdown", shutdown)
    stop_ray()
    assert core.asked == ["left"]


def test_this_process_goes_on_while_it_leaves_and_waits_when_it_is_told_to(monkeypatch: pytest.MonkeyPatch) -> None:
    may_leave, left = Event(), Event()

    def shutdown() -> None:
        may_leave.wait(30)
        left.set()

    monkeypatch.setattr(worker, "_global_node", None)
    monkeypatch.setattr(worker, "global_worker", SimpleNamespace())
    monkeypatch.setattr(ray, "shutdown", shutdown)
    wait = leave_ray()
    assert not left.is_set()
    may_leave.set()
    wait(30)
    assert left.is_set()


@pytest.mark.parametrize("name", [name for name in vars(Leaving) if not name.startswith("_")])
def test_what_is_kept_from_it_is_what_ray_calls(name: str) -> None:
    assert callable(getattr(CoreWorker, name))


def test_ray_does_not_take_this_process_for_a_worker_that_its_raylet_has_left_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAY_RAYLET_PID", "1")
    outlive_raylet()
    assert int(os.environ["RAY_RAYLET_PID"]) == os.getpid()
