"""A cluster that grows and shrinks with what a sweep needs: Ray's autoscaler, with nodes that are processes.

    PYTHONPATH=.:tests:tests/chaos python tests/chaos/grows.py

The head has no CPU, and up to three nodes of one CPU may be added. Trials take 4 s but one, which is the tail: it lasts
until the nodes that are of no use then have gone, or should have.
"""

from __future__ import annotations

import math
import os
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from come_and_go import clock, done
from hosts import PORT, hosts
from processes import end_all, environment, of_role
from scene import STUDY, UBT

from ubt.trials.record import TrialRecord, read_records

NODES, IDLE_SECONDS = 3, 15.0
TRIALS, BAR_SECONDS = 13, 60.0
PATIENCE_SECONDS = 600.0
_HEAD = "f" * 51 + "00000"
_NOTHING = yaml.safe_load(
    """
    {auth: {}, docker: {}, file_mounts: {}, initialization_commands: [], setup_commands: [], cluster_synced_files: [],
    head_setup_commands: [], worker_setup_commands: [], head_start_ray_commands: [], worker_start_ray_commands: [],
    rsync_exclude: [], rsync_filter: [], file_mounts_sync_continuously: false}
    """
)
"""What Ray wants to have been said, and these nodes have no use for."""


@dataclass
class Grown:
    """What came of it."""

    status: int
    records: list[TrialRecord]
    output: str
    began: float
    """When the run began: its folder was there."""
    ended: float
    """When the sweep did."""
    seen: list[tuple[float, int]]
    """When there was another number of nodes than before, the head left out."""

    def first(self, nodes: int, after: float = 0.0) -> float:
        """Return when there were so many nodes first, after a time."""
        return next((when for when, count in self.seen if count == nodes and when >= after), math.inf)

    @property
    def tail(self) -> float:
        """When only the last trial was left."""
        return sorted(clock(record.stages[-1].ended_at) for record in self.records)[-2]

    @property
    def victim_done(self) -> float:
        return max(clock(s.ended_at) for record in self.records for s in record.stages if s.stage == "implant")


def configuration(address: str) -> dict[str, Any]:
    """Return the autoscaler's configuration."""
    worker = {"resources": {"CPU": 1, "object_store_memory": 100_000_000}, "node_config": {}, "min_workers": 0}
    return {
        "cluster_name": "grows",
        "max_workers": NODES,
        "upscaling_speed": 1.0,
        "idle_timeout_minutes": IDLE_SECONDS / 60,
        "provider": {
            "type": "fake_multinode",
            "gcs_address": address,
            "head_node_id": _HEAD,
            "use_node_id_as_ip": True,  # all have one address, by which Ray would know them
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
        },
        "head_node_type": "ray.head.default",
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "worker": {**worker, "max_workers": NODES},
        },
        **_NOTHING,
    }


def measure(folder: Path) -> Grown:
    """Run a sweep on a cluster that has nothing but a head, and see which nodes come and go."""
    mark = f"grows-{folder.name}"
    hold = folder / "hold"
    hold.touch()
    waits: list[dict[str, object]] = [{"defense.number": 0, "defense.while_exists": str(hold)}]
    waits += [{"defense.number": number, "defense.wait_seconds": 4.0} for number in range(1, TRIALS)]
    study = {
        **STUDY,
        "name": "waiting",
        "plugins": [str(Path(__file__).with_name("waiting.py"))],
        "defense": {"kind": "waiting"},
        "search": {"design": "list", "trials": waits},
        "seeds": [0],
        "resources": {},
        "store": str(folder / "store"),
        "tracking": {"experiment": "waiting", "uri": f"sqlite:///{folder / 'mlflow.db'}"},
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    run = folder / "runs" / "waiting"
    try:
        with hosts(folder / "hosts", 1, mark=environment(mark)) as (head,), (folder / "log").open("w") as log:
            address = f"{head.address}:{PORT}"
            (folder / "cluster.yaml").write_text(yaml.safe_dump(configuration(address)))
            head.environment |= {"RAY_FAKE_CLUSTER": "1", "RAY_OVERRIDE_NODE_ID_FOR_TESTING": _HEAD}
            head.start_ray(head, 0, more=[f"--autoscaling-config={folder / 'cluster.yaml'}"])
            del head.environment["RAY_OVERRIDE_NODE_ID_FOR_TESTING"]
            words = ["sweep", str(folder / "study.yaml"), "--out", str(folder / "runs"), "--address", address]
            sweep = head.start(*UBT, *words, stdout=log, stderr=log)
            began, started, seen, tail = 0.0, time.time(), [(time.time(), 0)], 0.0
            while sweep.poll() is None and time.time() - started < PATIENCE_SECONDS:
                began = began or (time.time() if run.exists() else 0.0)
                nodes = len(of_role(mark, "raylet")) - 1
                if nodes != seen[-1][1]:
                    seen.append((time.time(), nodes))
                if not tail and done(run / "records") == TRIALS - 1:
                    tail = time.time()
                if tail and (nodes == 1 or time.time() - tail > IDLE_SECONDS + BAR_SECONDS):
                    hold.unlink(missing_ok=True)
                time.sleep(0.25)
            ended, status = time.time(), sweep.wait(10)
    finally:
        end_all(mark)
    return Grown(status, read_records(run / "records"), (folder / "log").read_text(), began, ended, seen)


def main() -> None:
    """Print what docs/clusters.md says."""
    folder = Path(tempfile.mkdtemp(prefix="ubt-grows-"))
    found = measure(folder)
    print(found.output[-1500:])
    computed = Counter(stage.key for record in found.records for stage in record.stages if not stage.reused)
    print(f"status {found.status}, {done(folder / 'runs/waiting/records')} of {TRIALS} DONE; load {os.getloadavg()}")
    print(f"stages computed twice: {sum(count - 1 for count in computed.values())}")
    print(f"nodes: {', '.join(f'{count} at {when - found.began:.1f} s' for when, count in found.seen[1:])}")
    print(f"first node asked for {found.first(1) - found.began:.1f} s after the run began")
    print(f"all {NODES} asked for {found.first(NODES) - found.victim_done:.1f} s after there were trials for them")
    left = found.first(1, found.tail) - found.tail
    print(f"one left {left:.1f} s after only the tail was left (idle {IDLE_SECONDS:g} s)")
    print(folder)


if __name__ == "__main__":
    sys.exit(main())
