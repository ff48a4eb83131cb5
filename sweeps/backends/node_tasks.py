"""What `sweeps.backends.nodes` asks of Ray: who is up, a task on each node, and workers on any node but some."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, TypeVar, cast

import ray
from ray import cloudpickle
from ray._private.state import state as ray_state  # private, so Ray is pinned: there is no public way
from ray.exceptions import GetTimeoutError, RayError
from ray.tune import PlacementGroupFactory
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
from ray.util import placement_group
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sweeps.backends import node_facts
from sweeps.backends.connection import capacity, demand, node_name
from sweeps.backends.node_facts import Facts
from sweeps.backends.nodes import Node, Nodes
from sweeps.study.config import Resources
from sweeps.workers.autoscaler import config_here, most_workers
from ubt.common.errors import Problem, UserError
from ubt.common.progress import waiting_for

Result = TypeVar("Result")

_LOOK_SECONDS = 1.0
"""How often a wait for Ray lets Python take signals."""


class RayCluster:
    """The cluster that this process is connected to."""

    def __init__(self) -> None:
        self._running: dict[Any, str] = {}
        # By value: the node that lacks the package says so, rather than failing to find the function.
        cloudpickle.register_pickle_by_value(node_facts)  # type: ignore[no-untyped-call]
        self._look = ray.remote(num_cpus=0, max_retries=0)(node_facts.look)

    def nodes(self) -> list[Node]:
        """Return the nodes that are up."""
        known = ray.nodes()  # type: ignore[no-untyped-call]
        return [
            Node(node["NodeID"], node_name(node["NodeID"], known), node["Resources"]) for node in known if node["Alive"]
        ]

    def leaving(self) -> set[str]:
        """Return the ids of the nodes whose end has been announced (`ray drain-node`); a Ray client knows of none."""
        if ray.util.client.ray.is_connected():  # type: ignore[no-untyped-call]
            return set()
        return set(ray_state.get_draining_nodes())

    def most_workers(self, resources: Resources) -> int | None:
        """Return how many workers fit on all nodes that may be added; None if that is not known."""
        if ray.util.client.ray.is_connected():  # type: ignore[no-untyped-call]
            return None
        config = config_here(ray.get_runtime_context().gcs_address)
        return most_workers(config, lambda node: capacity(resources, [node]))

    def begin(self, node: Node, asked: dict[str, Any]) -> None:
        """Let a node look at itself. The task takes no CPU, so that a busy node answers too."""
        there = NodeAffinitySchedulingStrategy(node.id, soft=False)
        self._running[self._look.options(scheduling_strategy=there).remote(asked)] = node.id

    def answers(self, seconds: float) -> Iterator[tuple[str, Facts | str]]:
        """Yield the id of each node that has answered, with its facts or why there are none."""
        if not self._running:
            return
        ready, _ = ray.wait(list(self._running), num_returns=1, timeout=seconds, fetch_local=False)
        if ready:
            ready, _ = ray.wait(list(self._running), num_returns=len(self._running), timeout=0, fetch_local=False)
        for task in ready:
            node = self._running.pop(task)
            try:
                yield node, ray.get(task)
            except RayError as error:  # the worker or its node died, or could not read the task
                yield node, str(error).strip().splitlines()[-1]


def as_trials(function: Callable[[], Result], resources: Resources) -> tuple[list[Result], list[str]]:
    """Call a function wherever a trial fits just now, in all those places at once; return what came of it, and faults.

    If none fits, it is called once, as soon as one does: an autoscaler adds a node for it.
    """
    task = ray.remote(num_cpus=resources.cpus_per_trial, num_gpus=resources.gpus_per_trial, max_retries=0)(function)
    known = ray.nodes()  # type: ignore[no-untyped-call]
    running: dict[Any, str] = {}
    for node in (node for node in known if node["Alive"]):
        there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        for _ in range(capacity(resources, [node["Resources"]])):
            running[task.options(scheduling_strategy=there).remote()] = node_name(node["NodeID"], known)
    running = running or {task.remote(): "the cluster"}
    results, faults = [], []
    for called, name in running.items():
        while not ray.wait([called], timeout=_LOOK_SECONDS)[0]:
            pass  # and signals are taken
        try:
            results.append(ray.get(called))
        except RayError as error:  # also what the function raised
            faults.append(f"{name}: {str(error).strip().splitlines()[-1]}")
    return results, faults


class WorkerRequest(PlacementGroupFactory):
    """What a trial's worker takes, on any node that is not in quarantine when Ray is asked for it."""

    def __init__(self, resources: Resources, nodes: Nodes | None) -> None:
        super().__init__([{"CPU": resources.cpus_per_trial, "GPU": resources.gpus_per_trial}])
        self._nodes = nodes

    def to_placement_group(self) -> PlacementGroup:
        """Ask Ray for it."""
        selector = self._nodes.selector if self._nodes else {}
        asked: PlacementGroup = placement_group(
            self.bundles, self.strategy, bundle_label_selector=[selector] if selector else None
        )
        return asked

    def __deepcopy__(self, memo: object) -> WorkerRequest:
        """Stay the one that knows the nodes wherever Tune copies its configuration."""
        return self

    def __getstate__(self) -> dict[str, Any]:
        """Leave the nodes out of the files in which Tune keeps itself."""
        return {**super().__getstate__(), "_nodes": None}  # type: ignore[no-untyped-call]


def never_again(trial: Trial) -> None:
    """Keep the worker of a trial that ends from others: Tune has it for those that ask for the same."""
    trial.placement_group_factory = PlacementGroupFactory([{"CPU": 1}], name="never again")  # type: ignore[assignment]


def let_go(controller: TuneController) -> None:
    """End workers that no trial has: Tune keeps one back for later trials."""
    kept: Any = controller._actor_cache  # private, so Ray is pinned: there is no public way
    if kept.num_cached_objects:
        controller._cleanup_cached_actors(force_all=True)


def take_back(controller: TuneController, trial: Trial) -> None:
    """End a trial that waits for its worker, and take back what Ray was asked for it.

    One that is just being given the worker of another is left alone: it says soon that it is there.
    """
    if trial in controller._resetting_trials:  # private, as above
        return
    controller.stop_trial(trial)  # type: ignore[no-untyped-call]
    if trial in controller._staged_trials:  # Tune goes on counting it as one that waits
        controller._unstage_trial_with_resources(trial)


def ask_again(controller: TuneController) -> None:
    """Ask Ray anew for workers that it has been asked for and not given: on any node but those in quarantine now."""
    manager: Any = controller._actor_manager._resource_manager  # private, so Ray is pinned: there is no public way
    asked = {request: len(staged) for request, staged in manager._request_to_staged_pgs.items()}
    for request, count in asked.items():
        for _ in range(count):
            manager.cancel_resource_request(request)
        for _ in range(count):
            manager.request_resources(request)


def on_a_node(what: str, resources: Resources, function: Callable[..., Result], *arguments: object) -> Result:
    """Run a function on a node of the cluster that a trial fits on, and return what that returns.

    After an interruption it goes on until it has ended, or its driver has: `ray.cancel` at the moment at which the
    task begins ends the driver from C++ ("Tried to complete task that was not pending").

    Args:
        what: what it does, in words: "the data to be decoded".
        resources: what a trial takes.
        function: a function of this package.
        arguments: plain values.

    Raises:
        UserError: as the function, or if no node can run it.
    """
    asked = {"num_cpus": resources.cpus_per_trial, "num_gpus": resources.gpus_per_trial}
    task = ray.remote(**asked)(function).remote(*arguments)  # type: ignore[call-overload]
    try:
        with waiting_for(f"{what} on a node with {demand(resources)}"):
            while True:
                with suppress(GetTimeoutError):
                    return cast(Result, ray.get(task, timeout=_LOOK_SECONDS))
    except UserError as error:  # Ray's own child of it, whose text is a traceback
        raise UserError(error.problems) from None
    except RayError as error:
        said = str(error).strip().splitlines()[-1]
        advice = "`ubt doctor --address …` says what each node lacks"
        raise UserError(
            Problem("the cluster", f"waited for {what}, which failed on a node: {said}", advice=advice)
        ) from error
