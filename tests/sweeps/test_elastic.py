"""Concurrency on a real Ray that grows while trials run: halves of GPUs are all used, on nodes that join too.

Trials do nothing but wait until as many run as fit. There are no GPUs: Ray is made to believe in them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from ray.cluster_utils import Cluster as Processes
from ray_cluster import ray_cluster
from toy_session import rates, toy_session

from sweeps.backends.execute import run_on_ray
from sweeps.backends.fitness import Expected
from sweeps.backends.node_tasks import RayCluster
from sweeps.backends.nodes import Nodes
from sweeps.backends.trainable import UbtTrainable
from sweeps.search.proposals import Changes
from sweeps.study.config import Resources
from ubt.trials.assignment import Assignment
from ubt.trials.record import State, TrialRecord, read_records

pytestmark = pytest.mark.slow

FIRST, ALL = 2, 6
PATIENCE_SECONDS = 150.0


def running(folder: Path) -> int:
    """Return how many trials run."""
    return len(list((folder / "running").iterdir()))


class Together(UbtTrainable):
    """Trials that end once as many as expected have run at a time; each leaves a file while it runs."""

    def runner_on(self, node: str) -> Any:
        self.node = node
        return self

    def close(self) -> None:
        """Nothing is held."""

    def refreshed(self, record: TrialRecord) -> None:
        """Nothing is published."""

    def run(self, assignment: Assignment) -> Iterator[TrialRecord]:
        folder, deadline = Path(assignment.store), time.monotonic() + PATIENCE_SECONDS
        here = folder / "running" / assignment.trial
        here.touch()
        while not (folder / "enough").exists() and time.monotonic() < deadline:
            if running(folder) >= ALL:
                (folder / "enough").touch()
            time.sleep(0.1)
        here.unlink()
        yield assignment.record(State.DONE).model_copy(update={"val": rates()})


@pytest.fixture
def cluster() -> Iterator[Processes]:
    """A head without CPUs, and a node with one GPU."""
    with ray_cluster(__name__, {"num_cpus": 2, "num_gpus": 1}) as cluster:
        yield cluster


@pytest.mark.timeout(2 * PATIENCE_SECONDS)
def test_two_trials_run_on_each_gpu_also_of_a_node_that_joins_while_they_do(cluster: Processes, tmp_path: Path) -> None:
    """There were as many as had fitted at the start, or eight: half of eight GPUs stood idle."""
    layout: list[Changes] = [{"victim.pretrain.epochs": epochs} for epochs in range(10, 10 + ALL + 2)]
    toy, resources = toy_session(tmp_path, layout), Resources(gpus_per_trial=0.5)
    (tmp_path / "running").mkdir()
    toy.planner.store = str(tmp_path)

    class Joined(Nodes):
        """To which a node is added once trials run; by this thread, as Ray wants it."""

        joined = False

        def poll(self) -> None:
            if not self.joined and running(tmp_path) == FIRST:
                self.joined = True
                cluster.add_node(num_cpus=4, num_gpus=2)
            super().poll()

    with closing(Joined(Expected(str(tmp_path / "store"), modules=("numpy",)), resources, RayCluster())) as nodes:
        nodes.check()
        assert nodes.capacity.now == FIRST
        run_on_ray(toy.session, resources, 1, tmp_path, Together, nodes)
        assert nodes.capacity.now == ALL
    assert (tmp_path / "enough").exists()
    assert [record.state for record in read_records(tmp_path / "records")] == [State.DONE] * len(layout)
