"""Two sweeps of one study on one store: what both compute, and how long one waits for another that was killed.

    python benchmarks/two_sweeps.py [--store folder|s3] [--address local|inline] [--trials 8]
    python benchmarks/two_sweeps.py --kill [--store folder|s3] [--same-machine]

The first starts both together and counts the stages that both have computed, by their records. The second starts both
in this way, kills (-9) the one that computes the implant, and measures when the other takes it over and ends, beside
what a sweep takes that is alone. Without `--same-machine` the processes do not see that they are on one machine, as
sweeps on two nodes would not: the heartbeat is all they have. S3 is moto's server, on this machine.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from ubt.artifacts.store import ArtifactStore
from ubt.trials.record import StageRecord, State, read_records

NAMES = ("one", "other")
SWEEP = """
import os, sys
if sys.argv[1] == "elsewhere":
    from ubt.artifacts import heartbeat
    kernel = f"machine {os.getpid()}"
    heartbeat._kernel = lambda: kernel
sys.argv = ["ubt", "sweep", *sys.argv[2:]]
from sweeps.cli.app import main
main()
"""


@contextmanager
def store_of(kind: str, folder: Path) -> Iterator[str]:
    """Give the address of an empty store."""
    if kind == "folder":
        yield str(folder / "store")
        return
    import boto3  # noqa: PLC0415
    from moto.server import ThreadedMotoServer  # noqa: PLC0415

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    os.environ.update(AWS_ENDPOINT_URL=f"http://{host}:{port}", AWS_DEFAULT_REGION="us-east-1")
    os.environ.update(AWS_ACCESS_KEY_ID="test", AWS_SECRET_ACCESS_KEY="test")
    boto3.client("s3").create_bucket(Bucket="bucket")
    yield f"s3://bucket/{folder.name}"
    server.stop()


def start(
    name: str, store: str, folder: Path, trials: int, address: str, where: str = "here"
) -> subprocess.Popen[bytes]:
    """Start a sweep of the study `smoke`; what it prints goes to a file."""
    given = ["smoke", "--name", name, "--out", str(folder), "--address", address, "--set", f"store={store}"]
    given += ["--set", "tracking.enabled=false", "--set", f"search.n_trials={trials}"]
    given += ["--set", "victim.implant.epochs=80"]  # so long that the other sweep comes while it is computed
    given += ["--set", 'search.space={"defense.overfit_epochs": [1, 2], "defense.unlearn_samples": [8, 12, 16, 24]}']
    with (folder / f"{name}.log").open("wb") as log:
        return subprocess.Popen([sys.executable, "-c", SWEEP, where, *given], stdout=log, stderr=log)


def computed(folder: Path, name: str) -> dict[str, StageRecord]:
    """Return the stages that a sweep has computed, by key."""
    records = read_records(folder / name / "records")
    return {stage.key: stage for record in records for stage in record.stages if stage.complete and not stage.reused}


def together(kind: str, address: str, trials: int, folder: Path) -> dict[str, object]:
    """Start two sweeps at once, and count."""
    with store_of(kind, folder) as store:
        began = time.monotonic()
        running = [start(name, store, folder, trials, address) for name in NAMES]
        statuses = [process.wait() for process in running]
        seconds = time.monotonic() - began
    one, other = (computed(folder, name) for name in NAMES)
    records = [record for name in NAMES for record in read_records(folder / name / "records")]
    return {
        "store": kind,
        "address": address,
        "status": statuses,
        "trials_done": sum(record.state is State.DONE for record in records),
        "stages": len(one.keys() | other.keys()),
        "computed_by_one": len(one),
        "computed_by_the_other": len(other),
        "computed_by_both": len(one.keys() & other.keys()),
        "seconds": round(seconds, 1),
    }


def killed(kind: str, trials: int, folder: Path, where: str) -> dict[str, object]:
    """Kill the sweep that computes the implant, and measure what becomes of the other."""
    with store_of(kind, folder) as store:
        began = time.monotonic()
        start("alone", f"{store}-alone", folder, trials, "inline").wait()
        alone = time.monotonic() - began
        files = ArtifactStore(store).lease_files()
        assert files is not None
        victim = start(NAMES[0], store, folder, trials, "inline", where)
        while not any(slot.startswith("implant/") for slot, _ in files.slots()):
            time.sleep(0.02)
        survivor = start(NAMES[1], store, folder, trials, "inline", where)
        while not any(record.waits_for for record in read_records(folder / NAMES[1] / "records")):
            time.sleep(0.1)
        victim.kill()
        at, began = time.time(), time.monotonic()
        victim.wait()
        status = survivor.wait()
        ended = time.monotonic() - began
    implant = next(stage for stage in computed(folder, NAMES[1]).values() if stage.stage == "implant")
    return {
        "store": kind,
        "machines": 1 if where == "here" else 2,
        "status": status,
        "seconds_alone": round(alone, 1),
        "seconds_until_taken_over": round(datetime.fromisoformat(implant.started_at).timestamp() - at, 1),
        "seconds_until_the_other_ended": round(ended, 1),
    }


def main() -> None:
    """Measure, and print a table and a JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", choices=["folder", "s3"], default="folder")
    parser.add_argument("--address", default="local")
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--kill", action="store_true")
    parser.add_argument("--same-machine", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if arguments.kill:
            where = "here" if arguments.same_machine else "elsewhere"
            result = killed(arguments.store, arguments.trials, folder, where)
        else:
            result = together(arguments.store, arguments.address, arguments.trials, folder)
    for what, value in result.items():
        print(f"{what:<32}{value}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
