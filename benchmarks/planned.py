"""Plan against actual: calibrate, plan and run a study in this process, and print what each stage was planned to take.

    python benchmarks/planned.py STUDY WORK [--set PATH=VALUE …] [--cpu-time]

The store is a new one in WORK, so all that is planned comes from the calibration. With `--cpu-time` seconds are those
in which this process computed, in the calibration as in the stages: on a machine that other work shares these are what
stages would take on an idle one, as long as trials have one thread and no GPU.
"""

from __future__ import annotations

import argparse
import os
import shutil
import time
from pathlib import Path

from analysis import load_run
from sweeps.cli.plan import plan_text
from sweeps.planning.plan import plan_study
from sweeps.run.calibrate import calibrate_study
from sweeps.run.folder import new_run
from sweeps.run.launch import run_study
from sweeps.study.loading import load_study
from ubt.common.formatting import text_table


def main() -> None:
    """Run the command."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("study")
    asked.add_argument("work", type=Path)
    asked.add_argument("--set", action="append", default=[], dest="assignments")
    asked.add_argument("--cpu-time", action="store_true")
    given = asked.parse_args()
    if given.cpu_time:
        time.perf_counter = time.process_time
    store = given.work / "store"
    shutil.rmtree(store, ignore_errors=True)
    study = load_study(given.study, [f"store={store}", "tracking.enabled=false", *given.assignments])
    print("load", os.getloadavg(), flush=True)
    began = time.time()
    calibrate_study(study, "inline")
    print(f"calibrated in {time.time() - began:.0f} s", flush=True)
    print(plan_text(plan_study(study)), flush=True)
    began = time.time()
    end = run_study(study, new_run(given.work / "runs", study.name), "inline")
    print(f"ran in {time.time() - began:.0f} s, load", os.getloadavg())
    times = load_run(end.run.path).summary.planned
    assert times is not None, "a new run has a plan"
    rows = [
        (name, f"{stage.planned or 0:.2f}", f"{stage.actual:.2f}", f"{stage.actual / (stage.planned or 1):.2f}")
        for name, stage in times.stages.items()
    ]
    rows.append(("all", f"{times.planned or 0:.2f}", f"{times.actual:.2f}", f"{times.factor or 0:.2f}"))
    print(text_table({"stage": "left", "planned": "right", "took": "right", "factor": "right"}, rows))


if __name__ == "__main__":
    main()
