"""A cluster's nodes: what each says of itself, whether that is fit for trials, and which get none.

The nodes are real as far as they can be in one process: each looks at itself by the function that is sent to nodes.
"""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ray import cloudpickle

from sweeps.backends import node_facts
from sweeps.backends import nodes as nodes_module
from sweeps.backends.connection import TRIALS_WAITING, node_name
from sweeps.backends.fitness import Expected, judge
from sweeps.backends.node_facts import Facts, look
from sweeps.backends.nodes import LOOK_SECONDS, PATIENCE_SECONDS, Node, Nodes
from sweeps.run.preflight import expected_of
from sweeps.study.config import Resources
from sweeps.study.loading import load_study
from sweeps.workers.pool import Capacity
from ubt.artifacts.store import ArtifactStore, UnusableStore
from ubt.common.errors import Problem, UserError
from ubt.config.dotted_paths import set_path

pytestmark = pytest.mark.usefixtures("impatient")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_facts, "_STORE_PAUSE_SECONDS", 0.0)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Expected:
    """What the smoke study expects of nodes."""
    store = tmp_path_factory.mktemp("expected") / "store"
    return replace(expected_of(load_study("smoke"), str(store), {}), modules=("numpy", "ubt.engine.graph"))


class Toy:
    """A cluster whose nodes answer when they are told to, and differ where a test says so."""

    def __init__(self, *names: str) -> None:
        self.there = [node(name) for name in names]
        self.differ: dict[str, Any] = {}
        """Node → what is put into what it is asked, or what it answers if that is text."""
        self.silent: set[str] = set()
        self.drained: set[str] = set()
        self.most: int | None = None
        self.asked: dict[str, dict[str, Any]] = {}
        self.seconds = 0.0

    def nodes(self) -> list[Node]:
        return self.there

    def most_workers(self, resources: Resources) -> int | None:
        return self.most

    def leaving(self) -> set[str]:
        return self.drained

    def begin(self, node: Node, asked: dict[str, Any]) -> None:
        self.asked[node.id] = asked

    def answers(self, seconds: float) -> Iterator[tuple[str, Facts | str]]:
        self.seconds += seconds
        for name in [name for name in self.asked if name not in self.silent]:
            asked, differs = self.asked.pop(name), self.differ.get(name, {})
            yield name, differs if isinstance(differs, str) else look({**asked, **differs})


def node(name: str, **resources: float) -> Node:
    return Node(name, f"host-{name} (10.0.0.1)", resources or {"CPU": 2.0})


def nodes_of(cluster: Toy, expected: Expected, **more: Any) -> Nodes:
    return Nodes(expected, Resources(), cluster, seconds=lambda: cluster.seconds, **more)


def notes_in(store: str) -> list[str]:
    return [path.name for path in Path(store).glob("artifacts/.*")]


def test_where_all_is_well_nothing_is_said_and_nothing_left(
    expected: Expected, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(nodes_of(Toy("a", "b"), expected)) as nodes:
        nodes.check()
        assert (nodes.selector, [each.id for each in nodes.left]) == ({}, ["a", "b"])
        assert nodes.for_workers()["well"] == ["a", "b"]
    assert not caplog.text
    assert notes_in(expected.store) == []


def test_a_store_that_a_node_does_not_share_is_found_and_named(
    expected: Expected, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The node's own folder of the same path, which one process can only see under another name."""
    cluster = Toy("a", "b")
    cluster.differ["b"] = {"store": str(tmp_path / "own")}
    with closing(nodes_of(cluster, expected)) as nodes:
        nodes.check()
        assert nodes.quarantined == {"b"}
        assert nodes.selector == {"ray.io/node-id": "!in(b)"}
    assert notes_in(str(tmp_path / "own")) == []
    assert "1 of 2 nodes get no trials" in caplog.text
    assert "host-b (10.0.0.1)" in caplog.text
    assert f"the store {expected.store} is another one there" in caplog.text


def test_other_data_and_other_stages_of_a_node_are_found(expected: Expected) -> None:
    other, planned = dict(expected.trials[0]), expected.trials
    for name, said in (("data_key", "other content than the study"), ("keys", "stage `pretrain` has another key")):
        cluster = Toy("a", "b")
        cluster.differ["b"] = {"trials": [{**other, name: "other" if name == "data_key" else ["other"]}]}
        with closing(nodes_of(cluster, replace(expected, trials=planned))) as nodes:
            nodes.check()
            (finding,) = nodes.findings["b"]
            assert said in finding.what


def test_a_store_that_shows_a_node_what_the_sweep_writes_but_not_the_other_way_is_found(expected: Expected) -> None:
    cluster = Toy("a", "b")
    cluster.differ["b"] = {"answer": ""}
    with closing(nodes_of(cluster, expected)) as nodes:
        nodes.check()
        assert nodes.quarantined == {"b"}


def test_if_no_node_is_left_the_sweep_ends_with_all_that_is_wrong(expected: Expected) -> None:
    cluster = Toy("a", "b")
    cluster.differ = {"a": "the worker died", "b": {"modules": ("numpy", "no_such_module")}}
    with closing(nodes_of(cluster, expected)) as nodes, pytest.raises(UserError) as caught:
        nodes.check()
    assert [problem.where for problem in caught.value.problems] == ["node host-a (10.0.0.1)", "node host-b (10.0.0.1)"]
    assert "its check failed: the worker died" in str(caught.value)
    assert "`no_such_module` cannot be imported" in str(caught.value)
    assert notes_in(expected.store) == []


def test_a_cluster_without_a_node_that_a_trial_fits_on_is_waited_for(expected: Expected) -> None:
    cluster = Toy()
    cluster.there = [node("head", memory=1e9)]
    with closing(nodes_of(cluster, expected)) as nodes:
        nodes.check()
        assert (nodes.count, cluster.asked) == (0, {})


def test_a_node_that_does_not_answer_is_named_and_gets_trials_once_it_does(
    expected: Expected, caplog: pytest.LogCaptureFixture
) -> None:
    cluster = Toy("a", "b")
    cluster.silent = {"b"}
    with closing(nodes_of(cluster, expected)) as nodes:
        nodes.check()
        assert PATIENCE_SECONDS < cluster.seconds < PATIENCE_SECONDS + 5
        assert "from host-b (10.0.0.1)" in caplog.text
        assert nodes.quarantined == {"b"}
        before, cluster.silent = nodes.changes, set()
        nodes.poll()
        assert (nodes.quarantined, nodes.selector, nodes.changes) == (set(), {}, before + 1)
        assert nodes.for_workers()["well"] == ["a", "b"]


def test_if_none_answers_it_is_waited_for_with_a_line_each_minute(
    expected: Expected, caplog: pytest.LogCaptureFixture
) -> None:
    cluster = Toy("a")
    cluster.silent = {"a"}
    answers = cluster.answers

    def later(seconds: float) -> Iterator[tuple[str, Facts | str]]:
        if cluster.seconds > 3 * PATIENCE_SECONDS:
            cluster.silent = set()
        return answers(seconds)

    cluster.answers = later  # type: ignore[method-assign]
    with closing(nodes_of(cluster, expected)) as nodes:
        nodes.check()
        assert nodes.quarantined == set()
    assert len(caplog.records) == 2


def test_a_node_that_joins_is_looked_at_within_seconds_and_asked_once(
    expected: Expected, caplog: pytest.LogCaptureFixture
) -> None:
    cluster = Toy("a")
    with closing(nodes_of(cluster, expected)) as nodes:
        nodes.check()
        cluster.there.append(node("b"))
        cluster.differ["b"] = {"modules": ("no_such_module",)}
        nodes.poll()
        assert cluster.asked == {}, "not at every step of Tune's"
        cluster.seconds += LOOK_SECONDS
        nodes.poll()
        assert nodes.quarantined == {"b"}
        cluster.seconds += LOOK_SECONDS
        nodes.poll()
    assert caplog.text.count("host-b") == 1


def test_a_node_that_joins_while_the_store_stumbles_is_asked_anew(
    expected: Expected, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stumbles(*_: object) -> bool:
        raise UnusableStore([Problem("the store", "no answer")])

    cluster = Toy("a")
    with closing(nodes_of(cluster, expected)) as nodes:
        nodes.check()
        cluster.there.append(node("b"))
        with monkeypatch.context() as during:
            during.setattr(nodes_module, "sees", stumbles)
            cluster.seconds += LOOK_SECONDS
            nodes.poll()
        assert nodes.for_workers()["well"] == ["a"]
        cluster.seconds += LOOK_SECONDS
        nodes.poll()
        assert nodes.for_workers()["well"] == ["a", "b"]


def test_there_is_room_on_the_nodes_that_are_there_while_the_sweep_runs_and_more_is_asked_for(
    expected: Expected,
) -> None:
    """What fitted at the start was all that ever ran."""
    cluster = Toy("a")
    with closing(nodes_of(cluster, expected)) as nodes:
        nodes.check()
        assert nodes.capacity == Capacity(2, 2 + TRIALS_WAITING)
        cluster.there += [node(name, CPU=8.0) for name in "bcd"]
        cluster.differ["d"] = "it cannot read the task"
        cluster.seconds += LOOK_SECONDS
        nodes.poll()
        assert nodes.capacity == Capacity(18, 36), "of those that are fit"
    with closing(Nodes(expected, Resources(concurrent_trials=5), cluster, seconds=lambda: cluster.seconds)) as nodes:
        nodes.check()
        assert nodes.capacity == Capacity(5, 5)
    cluster.most = 20
    with closing(nodes_of(cluster, expected)) as nodes:
        nodes.check()
        assert nodes.capacity == Capacity(18, 20), "what an autoscaler may add"


def test_a_node_that_leaves_gets_no_more_trials_and_is_not_unfit(
    expected: Expected, caplog: pytest.LogCaptureFixture
) -> None:
    cluster = Toy("a", "b")
    with closing(nodes_of(cluster, expected)) as nodes:
        nodes.check()
        before = nodes.changes
        cluster.drained = {"b"}
        cluster.seconds += LOOK_SECONDS
        nodes.poll()
        assert nodes.changes > before, "what Ray was asked for is asked for again, elsewhere"
        assert (nodes.selector, nodes.capacity.now) == ({"ray.io/node-id": "!in(b)"}, 2)
        assert nodes.quarantined == set()
        cluster.seconds += LOOK_SECONDS
        nodes.poll()
    assert caplog.text.count("host-b (10.0.0.1) leaves the cluster") == 1


def test_a_sweep_ends_when_its_last_node_is_gone_and_the_one_that_joins_is_not_fit(expected: Expected) -> None:
    cluster = Toy("a")
    with closing(nodes_of(cluster, expected)) as nodes:
        nodes.check()
        cluster.there = [node("b")]
        cluster.differ["b"] = "it cannot read the task"
        cluster.seconds += LOOK_SECONDS
        with pytest.raises(UserError, match="host-b"):
            nodes.poll()


def test_a_node_is_put_into_quarantine_once_and_whoever_asks_is_told_if_another_is_left(
    expected: Expected, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(nodes_of(Toy("a", "b"), expected)) as nodes:
        nodes.check()
        assert nodes.quarantine("b", "its data differs in row 7")
        assert nodes.quarantine("b", "its data differs in row 9")
        assert not nodes.quarantine("a", "its disk fails")
        assert nodes.selector == {"ray.io/node-id": "!in(a,b)"}
        assert nodes.for_workers()["well"] == []
    assert caplog.text.count("its data differs") == 1


def test_a_clock_that_is_off_is_told_and_the_node_is_used(expected: Expected, caplog: pytest.LogCaptureFixture) -> None:
    with closing(nodes_of(Toy("a"), expected, now=lambda: 0.0)) as nodes:
        nodes.check()
        assert nodes.quarantined == set()
    assert "not all is well with every node" in caplog.text
    assert "s ahead: times in records are off" in caplog.text


WELL: Facts = {
    "executable": "/opt/python",
    "imports": [],
    "plugins": None,
    "store": True,
    "gpus": None,
    "disk": {"folder": "/cache/images", "needed": 10, "free": 20},
}


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("python", "3.10", "Python 3.10 in /opt/python"),
        ("versions.torch", "1.0", r"torch 1\.0 \(here .*\) in /opt/python"),
        ("versions.ubt-sweeper", "", "ubt-sweeper is missing"),
        ("imports", ["torch", "OSError: libcudart"], "`torch` cannot be imported in /opt/python: OSError: libcudart"),
        ("code.ubt", "other", "the code of ubt differs"),
        ("failed", ["plugins", "no module mine"], "plug-ins cannot be imported: no module mine"),
        ("failed", ["content", "no attack `mine`"], "a trial cannot be prepared: no attack `mine`"),
        ("store", False, "is another one there"),
        ("gpus", 1, "Ray says that it has 2 GPUs, and torch sees 1"),
        ("disk.free", 5, "decoded images take 10 bytes in /cache/images, and 5 bytes are free"),
        ("content", "pairs.csv: row 3", "it has other content than the study: pairs.csv: row 3"),
    ],
)
def test_each_thing_that_makes_a_node_unfit_is_said(expected: Expected, path: str, value: Any, said: str) -> None:
    well = {**WELL, "python": expected.python, "versions": dict(expected.versions), "code": dict(expected.code)}
    well |= {"content": ""}
    assert judge(expected, well, gpus=2) is None
    found = judge(expected, set_path(well, path, value), gpus=2)
    assert found
    assert found.unfit
    assert found.advice
    assert re.search(said, found.what), found.what


def test_a_node_whose_torch_sees_no_gpu_says_what_its_driver_means_for_it(expected: Expected) -> None:
    said = "driver 535.129.03 is too old: torch 2.15.0 is built for CUDA 13.2; `make install CUDA=12`"
    same = {"python": expected.python, "versions": dict(expected.versions), "code": dict(expected.code), "content": ""}
    found = judge(expected, {**WELL, **same, "gpus": 0, "driver": said}, gpus=1)
    assert found
    assert found.what == f"Ray says that it has 1 GPUs, and torch sees 0: {said}"


def test_plug_ins_and_data_that_every_kind_of_trial_needs_are_asked_for() -> None:
    trials = expected_of(load_study("table"), "store", {}).trials
    assert {trial["config"]["defense"]["kind"] for trial in trials} >= {"ubt", "abl", "oracle"}
    assert len({trial["config"]["victim"]["attack"]["kind"] for trial in trials}) > 1


WITHOUT = """
import base64, json, sys
from ray import cloudpickle
sys.modules.update(dict.fromkeys(("ubt", "sweeps")))
print(json.dumps(cloudpickle.loads(base64.b64decode(sys.argv[1]))(json.loads(sys.argv[2]))))
"""


def test_a_node_without_the_package_says_so(expected: Expected) -> None:
    """In a process that cannot import it."""
    cloudpickle.register_pickle_by_value(node_facts)
    sent = base64.b64encode(cloudpickle.dumps(look)).decode()
    asked = json.dumps(expected.asked())
    out = subprocess.run([sys.executable, "-c", WITHOUT, sent, asked], check=True, capture_output=True, text=True)
    found = judge(expected, json.loads(out.stdout))
    assert found
    assert found.what.startswith("`ubt.engine.graph` cannot be imported in ")
    assert "ModuleNotFoundError" in found.what


def test_notes_left_in_a_store_are_strays(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    store.write_note("token-of-a-sweep")
    assert [Path(stray.path).name for stray in store.strays([])] == [".writable-token-of-a-sweep"]


def ray_node(number: str, host: str, address: str, alive: bool = True) -> dict[str, Any]:
    return {"NodeID": number * 16, "NodeManagerHostname": host, "NodeManagerAddress": address, "Alive": alive}


@pytest.mark.parametrize(
    ("others", "name"),
    [
        ([], "gpu-1 (10.0.0.2)"),
        ([ray_node("b", "gpu-2", "10.0.0.3")], "gpu-1 (10.0.0.2)"),
        ([ray_node("b", "gpu-1", "10.0.0.3")], "gpu-1 (10.0.0.2)"),
        ([ray_node("b", "gpu-1", "10.0.0.2")], "gpu-1 (10.0.0.2, aaaaaaaa)"),
        ([ray_node("b", "gpu-1", "10.0.0.2", alive=False)], "gpu-1 (10.0.0.2)"),
    ],
)
def test_a_node_is_called_by_host_and_address_and_no_two_alike(others: list[dict[str, Any]], name: str) -> None:
    assert node_name("a" * 16, [ray_node("a", "gpu-1", "10.0.0.2"), *others]) == name


def test_a_machine_of_its_own_is_called_as_it_calls_itself_and_an_unknown_node_by_nothing() -> None:
    alone = [ray_node("a", "laptop", "127.0.0.1")]
    assert node_name("a" * 16, alone) == "laptop"
    assert node_name("b" * 16, alone) == ""
