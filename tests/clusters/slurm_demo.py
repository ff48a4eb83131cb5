"""The demo, smaller, through Slurm: what docs/clusters.md shows. Run as a program, as root.

python tests/clusters/slurm_demo.py                    # all rounds: a quarter of an hour
python tests/clusters/slurm_demo.py "three nodes"      # one of them
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from hashlib import sha256
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path += [str(TESTS.parent), str(TESTS), str(TESTS / "chaos"), str(TESTS / "sweeps")]

from slurm_cluster import NODES, Slurm, slurm, why_not  # noqa: E402
from test_slurm import computed, manifests, mlflow_runs, submit  # noqa: E402

from ubt.trials.record import read_records  # noqa: E402

STUDY = """\
extends: demo
name: demo
victim:
  data: {pretrain_pairs: 1500, train_pairs: 1000, val_images: 240, test_images: 480}
  pretrain: {epochs: 3}
  implant: {min_asr: 0}
search: {n_trials: 8}
objectives: {epochs: last}
"""
UBT = f'#!/bin/bash\nexec {sys.executable} -c "from sweeps.cli.start import main; main()" "$@"\n'
SMALL = ("--cpus-per-task=1", "--mem=2000")
ROUNDS = {
    "one node": SMALL,
    "three nodes": (*SMALL, f"--nodes={NODES}"),
    "three nodes, time over twice": (*SMALL, f"--nodes={NODES}"),
}


def play(cluster: Slurm, place: Path, options: tuple[str, ...], over: tuple[int, ...]) -> list[str]:
    """Submit the demo and return what is to be shown of it; its time is over when so many trials have ended."""
    programs = place / ".venv" / "bin"
    programs.mkdir(parents=True)
    (programs / "ubt").write_text(UBT)
    (programs / "ubt").chmod(0o755)
    (place / "demo.yaml").write_text(STUDY)
    began, published = time.monotonic(), dict[Path, str]()
    job = submit(cluster, place, "demo.yaml", options=options)
    folder = place / "runs" / "demo" / "records"
    for trials in over:
        job.wait_until(lambda trials=trials: sum(record.state.ended for record in read_records(folder)) >= trials, 900)
        job.let_time_be_over()
        published = {**manifests(place), **published}
    state, _ = job.end()
    seconds = time.monotonic() - began
    found = read_records(folder)
    last = manifests(place)
    changed = [path for path, when in published.items() if last.get(path) != when]
    for path in changed:
        print(path, "made again" if path in last else "gone", file=sys.stderr)
    keys = computed(found)
    states = sorted({record.state.value for record in found})
    rates = [(record.trial, record.test.asr, record.test.ca) for record in found if record.test]
    print(job.log[-1500:], file=sys.stderr)
    return [
        state,
        f"{len(found)} {', '.join(states)}",
        str(job.restarts),
        f"{seconds:.0f} s",
        str(len(keys)),
        str(len(keys) - len(set(keys)) + len(changed)),
        str(mlflow_runs(place)["demo"]),
        sha256(repr(sorted(rates)).encode()).hexdigest()[:6],
    ]


def main() -> None:
    if reason := why_not():
        sys.exit(reason)
    print("| | job | trials | requeued | wall | stages computed | twice | MLflow parents | rates |", flush=True)
    print("|---|---|---|---:|---:|---:|---:|---:|---|", flush=True)
    with tempfile.TemporaryDirectory(prefix="ubt-slurm-", dir="/tmp") as folder, slurm(Path(folder)) as cluster:
        for name, options in ROUNDS.items():
            if name not in (sys.argv[1:] or ROUNDS):
                continue
            place = Path(folder) / name.replace(" ", "-").replace(",", "")
            place.mkdir()
            row = play(cluster, place, options, (2, 5) if "over" in name else ())
            print(f"| {name} | {' | '.join(row)} | (load {os.getloadavg()[0]:.0f})", flush=True)


if __name__ == "__main__":
    main()
