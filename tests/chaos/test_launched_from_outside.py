"""A host that is no node launches a sweep through the job server, looks at it, stops it, and goes on with it.

Its run folder and its store lie in S3, where the host sees them, also when the cluster is gone.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from hosts import Host, cluster, hosts, why_not
from moto.server import ThreadedMotoServer
from processes import end_all, environment
from scene import STUDY, UBT

BUCKET = "bucket"
OUT = f"s3://{BUCKET}/runs"
KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
TRIALS = 8
LIMIT_SECONDS = 600.0
TOKEN = "RAY_AUTH_TOKEN"


@contextmanager
def s3() -> Iterator[tuple[int, Any]]:
    """Run an S3 server that every host of this machine reaches, and give its port and a client."""
    server = ThreadedMotoServer(ip_address="0.0.0.0", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    client = boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{port}",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        region_name="us-east-1",
    )
    client.create_bucket(Bucket=BUCKET)
    try:
        yield port, client
    finally:
        server.stop()


@dataclass
class Outside:
    """The host that is no node, and what it takes to launch from there."""

    host: Host
    server: str
    study: Path
    took: dict[str, float]
    """Command → seconds of its last call."""
    job: str = ""

    def ubt(self, *words: str, well: bool = True) -> str:
        """Run a command there, and return what it prints."""
        began = time.monotonic()
        try:
            output = self.host.run(*UBT, *words, seconds=LIMIT_SECONDS)
        except RuntimeError as error:
            if well:
                raise
            output = str(error)
        self.took[" ".join(words[:1])] = time.monotonic() - began
        return output

    def launch(self, *words: str) -> dict[str, str]:
        """Launch the study."""
        output = self.ubt(
            "launch", str(self.study), "--address", self.server, "--out", OUT, "--grace", "60", "--json", *words
        )
        launched: dict[str, str] = json.loads(output.splitlines()[-1])
        return launched

    def status(self) -> dict[str, Any]:
        """Look at the run in S3 alone."""
        output = self.ubt("status", f"{OUT}/detached", "--json", well=False)
        line = output.splitlines()[-1]
        found: dict[str, Any] = json.loads(line)["run"] if line.startswith("{") else {}
        return found

    def wait(self, done: Callable[[dict[str, Any]], bool], limit_seconds: float = LIMIT_SECONDS) -> dict[str, Any]:
        """Look until the run is as it should be."""
        limit = time.monotonic() + limit_seconds
        while time.monotonic() < limit:
            found = self.status()
            if found and done(found):
                return found
            time.sleep(1)
        log = self.ubt("logs", self.job, "--address", self.server, well=False)
        raise AssertionError(f"not so after {limit_seconds} s: {self.status()}\n{log}")


@contextmanager
def outside(folder: Path) -> Iterator[tuple[Outside, list[Host], Any]]:
    """Have two hosts as a cluster and a third that only reaches it."""
    mark = f"detached-{folder.name}"
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    study = {
        **STUDY,
        "name": "detached",
        # So many that most trials are left when two are done, however long the command takes that ends the sweep.
        "defense": {**STUDY["defense"], "unlearn_epochs": 40},
        "objectives": {"epochs": "last"},
        "search": {
            "design": "grid",
            "space": {"defense.overfit_epochs": [1, 2], "defense.token_threshold": [0.05, 0.1]},
        },
        "store": f"s3://{BUCKET}/store",
        "tracking": {"enabled": False},
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    with s3() as (port, client):
        try:
            with hosts(folder / "hosts", 3, mark={**environment(mark), **KEYS, "PATH": path}) as made:
                bridge = made[0].address.rpartition(".")[0] + ".1"
                for host in made:
                    host.environment["AWS_ENDPOINT_URL"] = f"http://{bridge}:{port}"
                    # Ray gives each client a server of its own 30 s to start, which a busy machine may not keep.
                    host.environment["RAY_CLIENT_SERVER_CHECK_CHANNEL_TIMEOUT_S"] = str(int(LIMIT_SECONDS))
                    host.environment["GRPC_ENABLE_FORK_SUPPORT"] = "0"
                cluster(made[:2], job_server=True)
                yield Outside(made[2], f"http://{made[0].address}:8265", folder / "study.yaml", {}), made, client
        finally:
            end_all(mark)


@pytest.mark.clusters
@pytest.mark.timeout(1800)
@pytest.mark.skipif(bool(why_not()), reason=why_not())
def test_a_sweep_is_launched_stopped_and_gone_on_with_from_a_host_that_is_no_node(tmp_path: Path) -> None:
    with outside(tmp_path) as (there, made, client):
        with pytest.raises(RuntimeError, match=r"ended with 2:[^}]*the cluster asks for its token") as refused:
            there.host.run("env", "-u", TOKEN, *UBT, "launch", str(there.study), "--address", there.server)
        assert there.host.environment[TOKEN] not in str(refused.value)

        launched = there.launch()
        there.job = launched["job"]
        found = there.wait(lambda run: run["at_work"] and run["states"]["DONE"] >= 2)
        assert found["sweep"].startswith("detached on host-1")
        assert found["job"] == launched["job"]
        assert "Run folder: s3://bucket/runs/detached (the sweep works on host-1)" in there.ubt(
            "logs", f"{OUT}/detached"
        )

        assert "STOPPED" in there.ubt("stop", f"{OUT}/detached")
        stopped = there.wait(lambda run: not run["at_work"], 60)
        assert stopped["states"]["RUNNING"] == 0, "the sweep has ended in order"
        assert client.get_object(Bucket=BUCKET, Key="runs/detached/report/summary.json")

        again = there.launch("--resume")
        there.job = again["job"]
        done = there.wait(lambda run: run["complete"])
        assert done["states"]["DONE"] == done["total"] == TRIALS
        assert done["run"] == f"{OUT}/detached"
        assert done["job"] == again["job"]
        records = [record(client, key) for key in keys(client, "runs/detached/records/")]
        computed = Counter(
            stage["key"] for one in records for stage in one["stages"] if not stage["reused"] and stage["complete"]
        )
        assert set(computed.values()) == {1}, "no stage was computed twice"
        assert {stage["node"].split()[0] for one in records for stage in one["stages"]} == {"host-1", "host-2"}

        foreground = there.ubt(
            *("sweep", str(there.study), "--address", f"ray://{made[0].address}:10001", "--out", OUT, "--name", "front")
        )
        assert "Report:  s3://bucket/runs/front/report/index.html" in foreground
        assert {record(client, key)["state"] for key in keys(client, "runs/front/records/")} == {"DONE"}

        for host in made[:2]:
            host.end()
        assert json.loads(there.ubt("status", f"{OUT}/detached", "--json").splitlines()[-1])["run"]["complete"]
        page = Path(there.ubt("report", f"{OUT}/detached").splitlines()[0])
        assert page.is_file()
        assert page.is_relative_to(there.host.folder)
        assert "s3://bucket/runs/detached" in there.ubt(
            "track", f"{OUT}/detached", "--uri", f"sqlite:///{tmp_path}/m.db"
        )
        print({name: round(seconds, 1) for name, seconds in there.took.items()})


def keys(client: Any, prefix: str) -> list[str]:
    return [found["Key"] for found in client.list_objects_v2(Bucket=BUCKET, Prefix=prefix)["Contents"]]


def record(client: Any, key: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(client.get_object(Bucket=BUCKET, Key=key)["Body"].read())
    return found
