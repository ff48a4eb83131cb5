"""Where the time of a sweep goes, from the command to the report: the small grid of `sharing.py`.

    python benchmarks/economy.py [--levels 2] [--address local|inline]

`inline` runs all trials in this process, so that a worker's parts can be timed: its imports, its data and model,
computing, publishing, reading back. `local` times what Ray and MLflow add around them.
"""

from __future__ import annotations

import argparse
import functools
import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

from sharing import study

import sweeps.run.launch
from sweeps.run.folder import new_run
from sweeps.tracking import Tracker
from ubt.artifacts.store import ArtifactStore
from ubt.trials.record import read_records

Given, Result = ParamSpec("Given"), TypeVar("Result")

SECONDS: defaultdict[str, float] = defaultdict(float)


def timed(owner: object, name: str, part: str) -> None:
    """Let calls of `owner.name` be added up under a part's name."""
    setattr(owner, name, _timed(getattr(owner, name), part))


def _timed(inner: Callable[Given, Result], part: str) -> Callable[Given, Result]:
    @functools.wraps(inner)
    def outer(*given: Given.args, **named: Given.kwargs) -> Result:
        began = time.perf_counter()
        try:
            return inner(*given, **named)
        finally:
            SECONDS[part] += time.perf_counter() - began

    return outer


def time_a_worker() -> None:
    """Time what a worker does once, and its store."""
    began = time.perf_counter()
    import open_clip  # noqa: F401, PLC0415

    SECONDS["imports of torch and open_clip"] += time.perf_counter() - began
    from ubt.engine.workspace import Workspace  # noqa: PLC0415

    timed(Workspace, "__init__", "data and model, once a worker")
    timed(ArtifactStore, "publish", "publishing artifacts")
    timed(ArtifactStore, "read", "reading artifacts")


def main() -> None:
    """Run the grid and print a table and a JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--levels", type=int, default=2)
    parser.add_argument("--address", choices=("local", "inline"), default="local")
    arguments = parser.parse_args()
    if arguments.address == "inline":
        time_a_worker()
    timed(sweeps.run.launch, "prepare", "checks, decoding the data")
    timed(sweeps.run.launch, "start_ray", "start of Ray")
    timed(sweeps.run.launch, "_execute", "trials, first worker's start to last record")
    timed(sweeps.run.launch, "report", "report")
    timed(Tracker, "close", "waiting for MLflow")
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        config = study(arguments.levels).with_parts(store=str(Path(folder) / "store"))
        outcome = sweeps.run.launch.run_study(config, new_run(Path(folder), "economy"), arguments.address)
        records = read_records(outcome.run.records)
    SECONDS["stages, added up over workers"] = sum(s.spent_seconds for r in records for s in r.stages if not s.reused)
    SECONDS["all"] = time.perf_counter() - began
    result = {"trials": len(records), "address": arguments.address}
    for part, seconds in SECONDS.items():
        print(f"{part:<46}{seconds:8.2f} s")
    print(json.dumps({**result, **{part: round(seconds, 2) for part, seconds in SECONDS.items()}}))


if __name__ == "__main__":
    main()
