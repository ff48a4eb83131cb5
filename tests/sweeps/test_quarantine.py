"""Quarantine on a real Ray of two nodes: what runs on one is handed back, and from then on all runs on the other.

Trials do nothing but say where they run. There are more of them than workers, so that some wait for a worker, asked for
before the quarantine, that Ray would give them on that very node.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from ray_cluster import ray_cluster
from toy_session import rates, toy_session

from sweeps.backends.execute import run_on_ray
from sweeps.backends.fitness import Expected
from sweeps.backends.node_tasks import RayCluster
from sweeps.backends.nodes import Nodes
from sweeps.backends.trainable import UbtTrainable
from sweeps.search.proposals import Changes
from sweeps.study.config import Resources
from ubt.common.errors import UserError
from ubt.engine.graph import build_pipeline
from ubt.trials.assignment import Assignment
from ubt.trials.config import TrialConfig
from ubt.trials.record import Attempt, StageRecord, State, TrialRecord, read_records

pytestmark = pytest.mark.slow


class Says(UbtTrainable):
    """Trials that end at once and say where they ran; on a node that is marked they are handed back."""

    def runner_on(self, node: str) -> Any:
        self.node = node
        return self

    def close(self) -> None:
        """Nothing is held."""

    def refreshed(self, record: TrialRecord) -> None:
        """Nothing is published."""

    def run(self, assignment: Assignment) -> Iterator[TrialRecord]:
        attempt = Attempt(started_at=os.urandom(4).hex(), node=self._node)
        if "MARKED" not in os.environ and assignment.number < 2:
            time.sleep(6)  # meanwhile a worker could start again on the marked node, if it were asked for there
        record = assignment.record(State.RUNNING).model_copy(update={"attempts": (attempt,)})
        if "MARKED" in os.environ:
            with Path(os.environ["MARKED"]).open("a") as runs:
                runs.write(f"{assignment.trial}\n")
            lost = {"state": State.FAILED, "reason": "other data", "fault": "UnfitNode", "lost": True}
            yield record.model_copy(update=lost)
        pipeline = build_pipeline(TrialConfig.model_validate(assignment.config), assignment.seed, assignment.data_key)
        stages = tuple(StageRecord(stage=n.spec.name, key=n.key, reused=False, seconds=1) for n in pipeline)
        yield record.model_copy(update={"state": State.DONE, "stages": stages, "val": rates()})


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Two nodes, one of them marked; the file in which each run there is written down."""
    runs = tmp_path_factory.mktemp("marked") / "runs"
    with ray_cluster(__name__, {"num_cpus": 1}, {"num_cpus": 1, "env_vars": {"MARKED": str(runs)}}):
        yield runs


def test_what_is_handed_back_and_all_that_waits_runs_on_the_other_node(
    marked: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    layout: list[Changes] = [{"victim.pretrain.epochs": epochs} for epochs in range(10, 16)]  # no stage is shared
    toy = toy_session(tmp_path, layout)
    expected = Expected(str(tmp_path / "store"), modules=("numpy",))
    with closing(Nodes(expected, Resources(), RayCluster())) as nodes:
        nodes.check()
        assert len(nodes.left) == 2
        assert not caplog.text
        run_on_ray(toy.session, Resources(), 8, tmp_path, Says, nodes)
        (well,) = [node.id for node in nodes.left]
    records = read_records(tmp_path / "records")
    assert [record.state for record in records] == [State.DONE] * len(layout)
    assert {record.attempts[-1].node for record in records} == {well}
    assert len(marked.read_text().splitlines()) == 1
    assert "1 of 2 nodes get no trials" in caplog.text
    assert "other data" in caplog.text


def test_if_no_node_is_fit_it_is_said_what_is_wrong_with_each(marked: Path, tmp_path: Path) -> None:
    expected = Expected(str(tmp_path / "store"), modules=("no_such_module",))
    with closing(Nodes(expected, Resources(), RayCluster())) as nodes, pytest.raises(UserError) as caught:
        nodes.check()
    assert len(caught.value.problems) == 2
    assert "`no_such_module` cannot be imported in " in str(caught.value)


class NeverStarts(UbtTrainable):
    """Trials whose workers cannot start on any node."""

    def setup(self, config: dict[str, Any]) -> None:
        raise ModuleNotFoundError("No module named 'lacking'")


@pytest.mark.timeout(120)  # it waited for ever: what waits for a worker on a third node never ends by itself
def test_if_workers_can_start_on_no_node_the_sweep_ends(marked: Path, tmp_path: Path) -> None:
    toy = toy_session(tmp_path, [{"victim.pretrain.epochs": epochs} for epochs in range(10, 16)])
    expected = Expected(str(tmp_path / "store"), modules=("numpy",))
    with closing(Nodes(expected, Resources(), RayCluster())) as nodes:
        nodes.check()
        with pytest.raises(UserError, match=r"the sweep's workers: .*No module named 'lacking'"):
            run_on_ray(toy.session, Resources(), 8, tmp_path, NeverStarts, nodes)
        assert not nodes.left
    assert not read_records(tmp_path / "records")
