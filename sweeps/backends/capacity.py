"""Capacity: how many trials the nodes there are can run at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sweeps.study.config import Resources
from ubt.common.errors import Problem

Node = Mapping[str, float]
"""What a node has, as Ray says it: {"CPU": 8.0, "GPU": 1.0, …}."""


def local_trials(resources: Resources) -> int:
    """Return how many trials the CPUs of this machine allow at a time, of those that this process may use."""
    if resources.concurrent_trials:
        return resources.concurrent_trials
    from joblib import cpu_count  # noqa: PLC0415 — 0.2 s; unlike `os`, it knows affinity and a container's limit

    usable: int = cpu_count()
    return max(1, usable // resources.cpus_per_trial)


def capacity(resources: Resources, nodes: Sequence[Node]) -> int:
    """Return how many trials fit on nodes, each on one of them."""
    return sum(_capacity_of(resources, node) for node in nodes)


def _capacity_of(resources: Resources, node: Node) -> int:
    """Return how many trials fit on one node."""
    trials = int(node.get("CPU", 0) // resources.cpus_per_trial)
    if resources.gpus_per_trial:
        # 1e-9: of what is as good as whole (7 × ⅐), the rounding must not take one.
        trials = min(trials, int(node.get("GPU", 0) / resources.gpus_per_trial + 1e-9))
    return trials


def lacking_gpus(resources: Resources, nodes: Sequence[Node]) -> Problem:
    """Return the mistake of a study whose trials ask for more GPUs than the nodes have."""
    message = f"a trial asks for more GPUs than this machine has: {sum(node.get('GPU', 0) for node in nodes):g}"
    advice = "give 0 to compute on CPUs, or run it on a cluster with GPUs: --address auto, on its head"
    return Problem("resources.gpus_per_trial", message, resources.gpus_per_trial, advice)


def demand(resources: Resources) -> str:
    """Return in words what a trial takes."""
    return f"cpus_per_trial {resources.cpus_per_trial}, gpus_per_trial {resources.gpus_per_trial:g}"


def sum_of(nodes: Sequence[Node]) -> str:
    """Return in words what nodes have together."""
    cpus, gpus = (sum(node.get(name, 0) for node in nodes) for name in ("CPU", "GPU"))
    return f"{cpus:g} CPUs and {gpus:g} GPUs on {len(nodes)} node{'' if len(nodes) == 1 else 's'}"
