"""Hosts that come and go while a sweep runs: how near its time is to what the capacity there was allows.

    PYTHONPATH=.:tests:tests/chaos python tests/chaos/come_and_go.py [--trials 60] [--seconds 5] [--unannounced]

Three hosts in network namespaces, one CPU each. The third joins at a third of the trials, the second leaves at two
thirds. What Ray's workers on the third do until one has a trial is printed with times.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
import yaml
from hosts import PORT, Host, cluster, hosts
from processes import end_all, environment
from scene import STUDY, UBT

from ubt.trials.record import State, TrialRecord, read_record, read_records

PATIENCE_SECONDS = 900.0
NOTICE_SECONDS = 8.0
_DRAIN = """
import sys, time
from ray._raylet import GcsClient
from ray.core.generated.autoscaler_pb2 import DrainNodeReason
head, address, seconds = sys.argv[1:]
gcs = GcsClient(address=head)
(node,) = [each for each in gcs.get_all_node_info().values() if each.node_manager_address == address]
deadline = int((time.time() + float(seconds)) * 1000)
print(gcs.drain_node(node.node_id.hex(), DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION"), "going", deadline))
"""


@dataclass
class Measured:
    """What came of it."""

    status: int
    records: list[TrialRecord]
    output: str
    changes: list[tuple[float, int]]
    """When there was a host more or less, by the clock of records."""
    began: float
    ended: float
    joining: list[tuple[float, str]]
    """What a process of the host that joined began to do, and when."""

    @property
    def stages(self) -> list[Any]:
        """The trials' own stages, which no other trial needs."""
        return [stage for record in self.records for stage in record.stages if stage.stage in {"wait", "evaluate"}]

    @property
    def victim_done(self) -> float:
        """When trials could begin to run side by side."""
        return max(clock(s.ended_at) for record in self.records for s in record.stages if s.stage == "implant")

    @property
    def wall_seconds(self) -> float:
        return max(clock(stage.ended_at) for stage in self.stages) - self.victim_done

    @property
    def bound_seconds(self) -> float:
        """How long the same stages take if every host is busy from when it is there until it is gone."""
        work, at, hosts_there = sum(stage.spent_seconds for stage in self.stages), self.victim_done, 0
        later = []
        for when, change in sorted(self.changes):
            if when <= self.victim_done:
                hosts_there += change
            else:
                later.append((when, change))
        for when, change in later:
            if work <= (when - at) * hosts_there:
                break
            work -= (when - at) * hosts_there
            at, hosts_there = when, hosts_there + change
        return at + work / hosts_there - self.victim_done

    def first_on(self, host: str) -> float:
        """When the first stage began on a host."""
        return min(clock(stage.started_at) for stage in self.stages if stage.node.startswith(host))


def clock(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def measure(
    folder: Path,
    trials: int = 60,
    seconds: float = 5.0,
    announced: bool = True,
    notice_seconds: float = NOTICE_SECONDS,
    patient: bool = False,
) -> Measured:
    """Run the sweep, with a host that joins and one that leaves.

    Args:
        folder: for all that it writes.
        trials: how many.
        seconds: how long the stage of each takes.
        announced: the host that leaves says so before; otherwise it is killed.
        notice_seconds: how long before.
        patient: no trial ends until the host that joined has one, however busy this machine is.
    """
    mark, hold = f"come-and-go-{folder.name}", folder / "hold"
    study = {
        **STUDY,
        "name": "waiting",
        "plugins": [str(Path(__file__).with_name("waiting.py"))],
        "defense": {"kind": "waiting", "wait_seconds": seconds, "while_exists": str(hold)},
        "search": {"design": "grid", "space": {"defense.number": {"low": 1, "high": trials}}},
        "seeds": [0],
        "resources": {},
        "store": str(folder / "store"),
        "tracking": {"experiment": "waiting", "uri": f"sqlite:///{folder / 'mlflow.db'}"},
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    records = folder / "runs" / "waiting" / "records"
    words = [*UBT, "sweep", str(folder / "study.yaml"), "--out", str(folder / "runs"), "--address"]
    changes: list[tuple[float, int]] = []
    joining: list[tuple[float, str]] = []
    try:
        with hosts(folder / "hosts", 3, mark=environment(mark)) as made, (folder / "log").open("w") as log:
            address, began = cluster(made[:2]), time.time()
            changes += [(began, 1), (began, 1)]
            sweep = made[0].start(*words, address, stdout=log, stderr=log)

            def wait_for(count: int) -> None:
                while done(records) < count and sweep.poll() is None and time.time() - began < PATIENCE_SECONDS:
                    time.sleep(0.2)

            wait_for(trials // 3)
            if patient:
                hold.touch()
            with traced(made[2], joining):
                made[2].start_ray(made[0])
                changes.append((time.time(), 1))
                while hold.exists():
                    seen = any("host-3" in path.read_text() for path in records.glob("t*.json"))
                    if seen or sweep.poll() is not None or time.time() - began > PATIENCE_SECONDS:
                        hold.unlink()
                    time.sleep(0.2)
                wait_for(2 * trials // 3)
            if announced:
                drain(made[0], made[1], notice_seconds)
                time.sleep(notice_seconds)
            made[1].end()
            changes.append((time.time(), -1))
            wait_for(trials + 1)
            ended = time.time()
            status = sweep.wait(60)
    finally:
        end_all(mark)
    return Measured(status, read_records(records), (folder / "log").read_text(), changes, began, ended, joining)


@contextmanager
def traced(host: Host, seen: list[tuple[float, str]]) -> Iterator[None]:
    """Take down what Ray's workers on a host say that they do, in the names of their processes."""
    over = threading.Event()
    namespace = Path(f"/proc/{host.pid}/ns/pid").readlink()
    names: dict[int, str] = {}

    def look() -> None:
        while not over.wait(0.25):
            for process in psutil.process_iter():
                with suppress(psutil.Error, OSError, IndexError):
                    name = " ".join(process.cmdline()[:3])
                    is_worker = "ray::" in name or "default_worker.py" in name
                    if not is_worker or Path(f"/proc/{process.pid}/ns/pid").readlink() != namespace:
                        continue
                    name = "a worker starts" if "default_worker" in name else name.partition(" ")[0]
                    if names.get(process.pid) != name:
                        names[process.pid] = name
                        used = sum(process.cpu_times()[:2])
                        seen.append((time.time(), f"{name}, process {process.pid}, {used:.1f} s of CPU so far"))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def done(records: Path) -> int:
    found = 0
    for path in records.glob("t*.json"):
        found += read_record(path).state is State.DONE
    return found


def drain(head: Host, host: Host, seconds: float) -> None:
    """Announce that a host leaves, as a cloud does before it takes a machine back."""
    head.run(sys.executable, "-c", _DRAIN, f"{head.address}:{PORT}", host.address, str(seconds))


def main() -> None:
    """Print what docs/clusters.md says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--unannounced", action="store_true", help="the host that leaves is killed")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="ubt-come-and-go-"))
    found = measure(folder, arguments.trials, arguments.seconds, not arguments.unannounced)
    print((found.output)[-1500:])
    computed = Counter(stage.key for record in found.records for stage in record.stages if not stage.reused)
    ended_by = Counter(each.ended_by.partition(":")[0] for record in found.records for each in record.attempts[:-1])
    joined = found.changes[2][0]
    print(f"status {found.status}; {Counter(record.state for record in found.records)}; load {os.getloadavg()}")
    print(f"stages computed twice: {sum(count - 1 for count in computed.values())}; attempts ended by {dict(ended_by)}")
    print(f"by host: {dict(Counter(stage.node.split()[0] for stage in found.stages if stage.stage == 'wait'))}")
    print(f"first stage on the host that joined: {found.first_on('host-3') - joined:.1f} s after it was there")
    for when, what in [each for each in found.joining if each[0] <= found.first_on("host-3") + 1]:
        print(f"  {when - joined:+6.1f} s {what}")
    wall, bound = found.wall_seconds, found.bound_seconds
    print(f"wall {wall:.1f} s, bound {bound:.1f} s: × {wall / bound:.3f}")
    print(f"whole command {found.ended - found.began:.1f} s; {folder}")


if __name__ == "__main__":
    main()
