"""What `sweeps.backends.nodes` asks of Ray: who is up, a task on each node, and workers on any node but some."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import ray
from ray import cloudpickle
from ray.exceptions import RayError
from ray.tune import PlacementGroupFactory
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
from ray.util import placement_group
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sweeps.backends import node_facts
from sweeps.backends.connection import node_name
from sweeps.backends.node_facts import Facts
from sweeps.backends.nodes import Node, Nodes
from sweeps.study.config import Resources


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


def ask_again(controller: TuneController) -> None:
    """Ask Ray anew for workers that it has been asked for and not given: on any node but those in quarantine now."""
    manager: Any = controller._actor_manager._resource_manager  # private, so Ray is pinned: there is no public way
    asked = {request: len(staged) for request, staged in manager._request_to_staged_pgs.items()}
    for request, count in asked.items():
        for _ in range(count):
            manager.cancel_resource_request(request)
        for _ in range(count):
            manager.request_resources(request)
