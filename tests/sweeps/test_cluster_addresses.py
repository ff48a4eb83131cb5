"""Where a sweep may run: what is no address, what a cluster is given to do, and sweeps on a real cluster.

The cluster is a process of its own on this machine (this file, run as a program): a head without CPUs, and nodes
with a CPU and a pretended GPU that join and are lost when a test says so. All it starts ends with it.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import held
import pytest
from held import Holds
from ports import free_port
from test_sweep_ray import command_of, computed, descendants, names, send_the_rest

from sweeps.backends.connection import TRIALS_WAITING, capacity, check_address, meant, start_ray
from sweeps.study.config import Resources
from ubt.common.errors import UserError
from ubt.trials.record import State, TrialRecord, read_records

PATIENCE_SECONDS = 240
NODE = {"num_cpus": 1, "num_gpus": 1}
UBT = "from sweeps.cli.app import main; main()"
TRIALS = ["t0000", "t0001", "t0002"]


@pytest.fixture
def unused_port() -> Iterator[int]:
    """A port that is bound but not listened to: every connection is refused, and nobody else takes it."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", free_port()))
        yield holder.getsockname()[1]


@pytest.mark.parametrize(
    ("asked", "nodes", "fitting"),
    [
        ({}, [{"CPU": 4}, {"CPU": 2}], 6),
        ({"cpus_per_trial": 3}, [{"CPU": 4}, {"CPU": 2}, {"CPU": 7}], 3),
        ({"gpus_per_trial": 1}, [{"CPU": 8, "GPU": 2}, {"CPU": 8}], 2),
        ({"gpus_per_trial": 1 / 7}, [{"CPU": 8, "GPU": 1}], 7),
        ({"gpus_per_trial": 0.5}, [{"CPU": 32, "GPU": 8}], 16),
        ({"gpus_per_trial": 1}, [{"memory": 1e9}], 0),
    ],
)
def test_a_trial_has_to_fit_on_one_node(asked: dict[str, Any], nodes: list[dict[str, float]], fitting: int) -> None:
    assert capacity(Resources(**asked), nodes) == fitting


@pytest.mark.parametrize("address", ["", "foo", "http://127.0.0.1:8265", "ray://head", "ray://:1", "ray://a b:1"])
def test_what_is_no_address_is_told_with_what_is(address: str) -> None:
    with pytest.raises(UserError, match="HOST:PORT or ray://HOST:PORT") as caught:
        check_address(address)
    assert caught.value.problems[0].given == address


@pytest.mark.parametrize("address", ["ray://127.0.0.1:{}", "127.0.0.1:{}", "ray://[::1]:{}"])
def test_an_address_where_nobody_answers_is_told_with_what_to_do(address: str, unused_port: int) -> None:
    address = address.format(unused_port)
    with pytest.raises(UserError) as caught:
        check_address(address)
    assert f"--address {address}: nothing answers at" in str(caught.value)
    assert "ray exec cluster.yaml" in str(caught.value)


@pytest.mark.parametrize("address", ["ray://a..b:1", "127.0.0.1:99999"])
def test_a_host_or_port_that_cannot_be_is_no_traceback(address: str) -> None:
    with pytest.raises(UserError, match="nothing answers"):
        check_address(address)


def test_auto_goes_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, unused_port: int) -> None:
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{unused_port}")
    with pytest.raises(UserError, match=f"--address auto: nothing answers at 127.0.0.1:{unused_port}"):
        check_address("auto")
    monkeypatch.setenv("RAY_ADDRESS", "nonsense")
    with pytest.raises(UserError, match=r"\$RAY_ADDRESS: must be HOST:PORT"):
        check_address("auto")


def raylet(cluster: str, user: int = 0, folder: str = "/tmp/ray") -> Any:
    """A process of Ray's as psutil shows it: its own arguments, and in one of them those of its workers."""
    words = ["/opt/ray/raylet", "--node_id=ab", f"python worker.py --gcs-address={cluster} --temp-dir={folder} --x"]
    uids = SimpleNamespace(real=os.getuid() + user)
    return SimpleNamespace(info={"name": "raylet", "cmdline": words, "uids": uids, "username": f"user{user}"})


def on_this_machine(monkeypatch: pytest.MonkeyPatch, *processes: Any) -> None:
    hidden = SimpleNamespace(info={"name": "raylet", "cmdline": None, "uids": None, "username": None})
    other = SimpleNamespace(info={"name": "bash", "cmdline": ["bash", "--gcs-address=no:1"], "uids": None})
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("psutil.process_iter", lambda fields: [hidden, other, *processes])


class TestAuto:
    def test_is_the_one_cluster_of_this_user_that_this_machine_is_a_node_of(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        on_this_machine(monkeypatch, raylet("10.0.0.1:6379", user=1), raylet("10.0.0.2:6379"), raylet("10.0.0.2:6379"))
        assert meant("auto") == "10.0.0.2:6379"

    def test_is_no_other_user_s(self, monkeypatch: pytest.MonkeyPatch) -> None:
        on_this_machine(monkeypatch, raylet("10.0.0.1:6379", user=1))
        with pytest.raises(UserError) as caught:
            check_address("auto")
        assert "no node of a Ray cluster of yours. Others run on it: 10.0.0.1:6379 of user user1" in str(caught.value)
        assert "if you may use one of the others: --address HOST:PORT, with its token" in str(caught.value)

    def test_is_not_the_private_ray_of_another_sweep(self, monkeypatch: pytest.MonkeyPatch) -> None:
        private = [f"/tmp/ubt-{os.getuid()}/ray", f"/scratch/ubt-{os.getuid()}-x_1/ray"]
        on_this_machine(monkeypatch, *(raylet("127.0.0.1:41234", folder=folder) for folder in private))
        with pytest.raises(UserError, match="this machine is no node of a Ray cluster\n") as caught:
            check_address("auto")
        assert "ray exec cluster.yaml" in str(caught.value)

    def test_of_two_clusters_is_neither(self, monkeypatch: pytest.MonkeyPatch) -> None:
        on_this_machine(monkeypatch, raylet("10.0.0.1:1"), raylet("10.0.0.1:2", folder="/tmp/ubt-job-7-0/ray"))
        with pytest.raises(UserError, match=r"a node of 2 Ray clusters: 10\.0\.0\.1:1, 10\.0\.0\.1:2"):
            check_address("auto")


@pytest.fixture
def joined(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Join a cluster of these nodes, which is none."""

    def join(nodes: list[Mapping[str, float]], **asked: Any) -> int:
        monkeypatch.setattr("sweeps.backends.connection.check_address", lambda address: None)
        monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
        monkeypatch.setattr("ray.init", lambda **options: None)
        monkeypatch.setattr("ray.nodes", lambda: [{"Alive": True, "Resources": node} for node in nodes])
        return start_ray("auto", Resources(**asked))

    return join


def test_a_cluster_without_capacity_is_given_trials_that_wait_so_that_it_grows(
    joined: Callable[..., int], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert joined([{}, {"CPU": 4}], gpus_per_trial=1) == TRIALS_WAITING
    assert "no node of the cluster has capacity for a trial (cpus_per_trial 1, gpus_per_trial 1) now" in caplog.text
    assert "4 CPUs and 0 GPUs on 2 nodes" in caplog.text


def test_a_cluster_with_capacity_is_filled_and_a_given_number_is_kept(
    joined: Callable[..., int], caplog: pytest.LogCaptureFixture
) -> None:
    assert joined([{"CPU": 64}, {"CPU": 64}], cpus_per_trial=2) == 64
    assert joined([{"CPU": 64}], concurrent_trials=3) == 3
    assert not caplog.text


def test_what_a_ray_job_sets_too_is_as_the_trial_needs_it_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Ray refuses a variable that both a job and a program in it set, unless it is asked not to."""
    from ray.runtime_env.runtime_env import _merge_runtime_env

    given: list[Any] = []
    job = {
        "env_vars": {"OMP_NUM_THREADS": "4", "MKL_NUM_THREADS": "1", "HF_HOME": "/hf"},
        "working_dir": "s3://b/c.zip",
    }
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps({"runtime_env": job, "metadata": {}}))
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    monkeypatch.delenv("RAY_OVERRIDE_JOB_RUNTIME_ENV", raising=False)
    monkeypatch.setattr("sweeps.backends.connection.check_address", lambda address: None)
    monkeypatch.setattr("ray.init", lambda **options: given.append(options["runtime_env"]))
    monkeypatch.setattr("ray.nodes", lambda: [{"Alive": True, "Resources": {"CPU": 1}}])
    with caplog.at_level(logging.WARNING):
        start_ray("auto", Resources())
    merged = _merge_runtime_env(job, given[0], override=os.environ["RAY_OVERRIDE_JOB_RUNTIME_ENV"] == "1")
    assert merged is not None
    assert merged["working_dir"] == "s3://b/c.zip"
    assert (merged["env_vars"]["OMP_NUM_THREADS"], merged["env_vars"]["HF_HOME"]) == ("1", "/hf")
    assert "OMP_NUM_THREADS=4 of the Ray job is not used" in caplog.text
    assert "MKL_NUM_THREADS" not in caplog.text


@dataclass
class Cluster:
    """A cluster, steered by lines of text."""

    process: subprocess.Popen[str]
    gcs: str
    client: str
    token: str
    folder: Path

    def say(self, word: str) -> None:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == f"{word}\n", (self.folder / "err").read_text()

    @property
    def client_logs(self) -> str:
        """What Ray's servers for clients have to say."""
        logs = sorted(self.folder.glob("ray/session_2*/logs/ray_client_server*"))
        return "\n".join(f"{path.name}:\n{path.read_text(errors='replace')}" for path in logs)

    @property
    def workers(self) -> list[int]:
        """Ids of the processes that run trials."""
        return [pid for pid in descendants(self.process.pid) if command_of(pid).startswith("ray::UbtTrainable")]


@dataclass
class Sweep:
    """A `ubt sweep smoke` in a process of its own."""

    folder: Path
    process: subprocess.Popen[str]
    holds: Holds
    cluster: Cluster
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def records(self) -> list[TrialRecord]:
        return read_records(self.folder / "runs" / "smoke" / "records")

    @property
    def err(self) -> str:
        return (self.folder / "err").read_text()

    @property
    def why(self) -> str:
        """Why it ended, for whoever reads of a failure."""
        return f"{self.err}\n{self.cluster.client_logs}"

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait until something is so, as long as the sweep runs."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        ended = False
        while not condition():
            assert not ended, self.why
            assert time.monotonic() < deadline, f"it takes too long: {self.why}"
            time.sleep(0.05)
            ended = self.process.poll() is not None  # the condition is then looked at once more

    def is_at(self, stage: str) -> bool:
        """Tell whether a trial has told that it is at a stage, or past it."""
        return any(stage in names(record) for record in self.records)

    def end(self) -> int:
        return self.process.wait(timeout=PATIENCE_SECONDS)


Begin = Callable[..., Sweep]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    folder = Path(tempfile.mkdtemp(prefix="ubt-", dir="/tmp"))  # for Ray's sockets, whose paths must be short
    started: list[subprocess.Popen[str]] = []
    try:
        cluster = _started(folder / "1", started) or _started(folder / "2", started)
        assert cluster, "\n".join(path.read_text() for path in sorted(folder.glob("*/err")))
        yield cluster
        cluster.process.communicate("", timeout=PATIENCE_SECONDS)
    finally:
        for process in started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _started(folder: Path, started: list[subprocess.Popen[str]]) -> Cluster | None:
    """Start a cluster; None if that fails: a busy machine may not keep Ray's own limits, of 30 s for a node's start."""
    folder.mkdir()
    token, client = secrets.token_hex(16), free_port()
    environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token, "RAY_TMPDIR": str(folder)}
    # Ray gives each client a server of its own 30 s to start, which a busy machine may not keep.
    environment["RAY_CLIENT_SERVER_CHECK_CHANNEL_TIMEOUT_S"] = str(PATIENCE_SECONDS)
    # gRPC's handlers of forks may crash such a server before it has begun: "Starting Ray client server failed".
    environment["GRPC_ENABLE_FORK_SUPPORT"] = "0"
    environment["CUDA_VISIBLE_DEVICES"] = "99"  # the GPU that its nodes pretend to have
    with (folder / "err").open("w") as stream:
        process = subprocess.Popen(
            [sys.executable, __file__, str(client)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stream,
            text=True,
            env=os.environ | environment,
            start_new_session=True,
        )
    started.append(process)
    assert process.stdout
    address = process.stdout.readline()
    return Cluster(process, address.strip(), f"ray://127.0.0.1:{client}", token, folder) if address else None


@pytest.fixture(scope="module")
def begin(cluster: Cluster) -> Iterator[Begin]:
    begun: list[Sweep] = []

    def start(folder: Path, address: str, *words: str, held_at: str = "") -> Sweep:
        holds = Holds(folder / "holds", held_at, *(TRIALS if held_at else ()))
        environment = {**os.environ, "RAY_ADDRESS": cluster.gcs}
        if address != "local":
            environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": cluster.token}
        sets = ["--set", "store=store", "--set", "search.n_trials=3", "--out", "runs"]  # relative: to `folder`
        program = [held.__file__, str(holds.folder)] if held_at else ["-c", UBT]
        with (folder / "out").open("w") as out, (folder / "err").open("w") as err:
            process = subprocess.Popen(
                [sys.executable, *program, "sweep", "smoke", "--address", address, *sets, *words],
                stdout=out,
                stderr=err,
                env=environment,
                cwd=folder,
                start_new_session=True,
            )
        begun.append(Sweep(folder, process, holds, cluster))
        return begun[-1]

    yield start
    for sweep in begun:
        if sweep.process.poll() is None:
            os.killpg(sweep.process.pid, signal.SIGKILL)
            sweep.process.wait()


@pytest.fixture(scope="module")
def grown(cluster: Cluster, begin: Begin, tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    """A sweep on a cluster that has no node at first, then one, one that is not fit, none, and another one."""
    folder = tmp_path_factory.mktemp("grown")
    sweep = begin(folder, "auto", "--set", "resources.gpus_per_trial=1", held_at="poison")
    sweep.wait_until(lambda: "has capacity for a trial" in sweep.err)
    cluster.say("add")
    sweep.wait_until(lambda: sweep.is_at("poison"))
    environment = Path(f"/proc/{cluster.workers[0]}/environ").read_bytes().decode().split("\0")
    sweep.notes["environment"] = dict(line.split("=", 1) for line in environment if "=" in line)
    cluster.say("add spoilt")
    sweep.wait_until(lambda: "get no trials" in sweep.err)
    sweep.notes["when lost"] = {record.trial: record.state for record in sweep.records}
    cluster.say("lose")
    sweep.holds.end()
    cluster.say("add")
    sweep.end()
    return sweep


@pytest.mark.slow
class TestCluster:
    def test_it_waits_for_a_node_and_says_so(self, grown: Sweep) -> None:
        assert "(cpus_per_trial 1, gpus_per_trial 1) now, there are 0 CPUs and 0 GPUs on 1 node;" in grown.err

    def test_a_trial_whose_node_is_lost_is_run_again_and_all_are_done(self, grown: Sweep) -> None:
        assert grown.process.returncode == 0, grown.why
        assert [record.state for record in grown.records] == [State.DONE] * 3
        assert list(grown.notes["when lost"].values()) == [State.RUNNING]
        (lost,) = [record for record in grown.records if record.trial in grown.notes["when lost"]]
        assert lost.stages[0].ended_at < lost.attempts[-1].started_at, "the attempt before had published it"

    def test_a_node_that_joins_without_a_package_that_works_is_named_and_gets_no_trial(self, grown: Sweep) -> None:
        assert "1 of 2 nodes get no trials" in grown.err
        assert "`open_clip` cannot be imported in " in grown.err
        assert "ImportError: libGL.so.1 is missing" in grown.err
        assert [
            attempt.ended_by for record in grown.records for attempt in record.attempts if "fit" in attempt.ended_by
        ] == []

    def test_nothing_is_recorded_twice(self, grown: Sweep) -> None:
        send_the_rest(grown.folder / "runs" / "smoke")
        with closing(sqlite3.connect(grown.folder / "runs" / "mlflow.db")) as database:
            runs = sorted(name.split()[0] for (name,) in database.execute("select name from runs"))
        assert runs == ["smoke", *TRIALS]
        keys = computed(grown.records)
        assert len(set(keys)) == len(keys)

    def test_workers_compute_with_the_threads_of_a_trial(self, grown: Sweep) -> None:
        assert grown.notes["environment"]["OMP_NUM_THREADS"] == "1"

    def test_a_relative_store_lies_where_the_sweep_was_started(self, grown: Sweep) -> None:
        assert len(list((grown.folder / "store" / "artifacts" / "evaluate").iterdir())) == 3


@pytest.fixture(scope="module")
def from_outside(
    grown: Sweep, cluster: Cluster, begin: Begin, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Sweep, Sweep]:
    """A sweep over a Ray client that gets Ctrl-C on its way, and its continuation."""
    first = begin(tmp_path_factory.mktemp("outside"), cluster.client, held_at="overfit")
    first.wait_until(lambda: first.is_at("overfit"))
    os.kill(first.process.pid, signal.SIGINT)
    first.holds.end()
    first.end()
    first.notes |= {"why": first.why, "out": (first.folder / "out").read_text()}
    deadline = time.monotonic() + PATIENCE_SECONDS
    while cluster.workers and time.monotonic() < deadline:
        time.sleep(0.1)
    first.notes["workers"] = cluster.workers
    first.notes["artifacts"] = {path.parent.name for path in first.folder.glob("store/artifacts/*/*/meta.json")}
    second = begin(first.folder, cluster.client, "--resume")
    second.end()
    return first, second


Both = tuple[Sweep, Sweep]


@pytest.mark.clusters
class TestRayClient:
    def test_ctrl_c_ends_it_and_leaves_no_worker(self, from_outside: Both) -> None:
        first = from_outside[0]
        assert first.process.returncode == 130, first.notes["why"]
        assert first.notes["out"].rstrip().endswith("--resume")
        assert first.notes["workers"] == []

    def test_all_are_done_and_the_records_are_here(self, from_outside: Both) -> None:
        second = from_outside[1]
        assert second.process.returncode == 0, second.why
        assert [record.state for record in second.records] == [State.DONE] * 3
        assert (second.folder / "runs" / "smoke" / "report" / "index.html").is_file()

    def test_what_was_done_before_is_not_computed_again(self, from_outside: Both) -> None:
        first, second = from_outside
        assert len(first.notes["artifacts"]) >= 2
        assert not first.notes["artifacts"] & set(computed(second.records))


@pytest.mark.slow
def test_local_is_apart_from_the_cluster_and_refuses_gpus_that_are_not_there(begin: Begin, tmp_path: Path) -> None:
    sweep = begin(tmp_path, "local", "--set", "resources.gpus_per_trial=1")
    assert sweep.end() == 2
    assert "resources.gpus_per_trial: a trial asks for more GPUs than this machine has" in sweep.err
    assert "(given: 1.0)" in sweep.err
    assert "Token authentication" not in sweep.err
    assert not (tmp_path / "runs" / "smoke").exists()


def serve(client_port: int) -> None:
    """Be a cluster; `add` a node, or one that is `spoilt`, `lose` all nodes, until the input ends."""
    from ray.cluster_utils import Cluster as RayCluster

    spoilt = Path(tempfile.mkdtemp(dir=os.environ["RAY_TMPDIR"]))
    (spoilt / "open_clip.py").write_text("raise ImportError('libGL.so.1 is missing')")
    head = {"num_cpus": 0, "include_dashboard": False, "ray_client_server_port": client_port, "wait": False}
    cluster = RayCluster(initialize_head=True, head_node_args=head)
    cluster.wait_for_nodes(PATIENCE_SECONDS)
    (clients,) = cluster.head_node.all_processes["ray_client_server"]
    while not answers(client_port):
        assert clients.process.poll() is None, "Ray's server for clients has ended"
        time.sleep(0.1)
    print(cluster.gcs_address, flush=True)
    for line in sys.stdin:
        if line.startswith("add"):
            path = (
                f"{spoilt}:{os.environ.get('PYTHONPATH', '')}" if "spoilt" in line else os.environ.get("PYTHONPATH", "")
            )
            cluster.add_node(wait=False, env_vars={"PYTHONPATH": path}, **NODE)
        for node in list(cluster.worker_nodes) if line == "lose\n" else ():
            cluster.remove_node(node, allow_graceful=False)
        print(line, end="", flush=True)
    cluster.shutdown()


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


if __name__ == "__main__":
    serve(int(sys.argv[1]))
