"""What a trial costs when its stages cost nothing: ours against a plain Ray Tune function, in one run.

    python benchmarks/overhead.py [--trials 200] [--plain-trials 16]

Ours goes the whole way: scheduler, searcher, actor, records on disk, MLflow; only the stages do nothing. Plain is a
function trainable that reports once, with Ray's own `MLflowLoggerCallback`. Both import open_clip, as any trial of
either would.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeps.backends.connection import start_ray
from sweeps.backends.execute import run_on_ray
from sweeps.backends.lifetime import stop_ray
from sweeps.backends.trainable import UbtTrainable
from sweeps.planning.trials import TrialPlanner
from sweeps.run.folder import RunFolder
from sweeps.scheduling.session import Session
from sweeps.scheduling.stage_scheduler import StageScheduler
from sweeps.search.proposals import DesignProposer
from sweeps.study.config import StudyConfig
from sweeps.tracking import Tracker
from ubt.engine.graph import build_pipeline
from ubt.trials.assignment import Assignment
from ubt.trials.config import TrialConfig
from ubt.trials.rates import Rates
from ubt.trials.record import StageRecord, State, TrialRecord

if TYPE_CHECKING:
    from ubt.engine.runner import TrialRunner

WORKERS = 2
RATES = Rates(
    ca=0.9,
    ca_images=9,
    asr=0.1,
    asr_images=9,
    ca_low=0.8,
    ca_high=1.0,
    asr_low=0.0,
    asr_high=0.2,
    triggered_accuracy=0.8,
)


class NothingRunner:
    """Runs stages that do nothing."""

    def __init__(self, node: str) -> None:
        import open_clip  # noqa: F401, PLC0415 — the import is part of what is measured

        self.node = node

    def close(self) -> None:
        """Nothing is held."""

    def refreshed(self, record: TrialRecord) -> None:
        """Nothing is published."""

    def run(self, assignment: Assignment) -> Iterator[TrialRecord]:
        """Yield a record after each stage, as the real runner does."""
        record = assignment.record(State.RUNNING)
        trial = TrialConfig.model_validate(assignment.config)
        for node in build_pipeline(trial, assignment.seed, assignment.data_key):
            stage = StageRecord(stage=node.spec.name, key=node.key, reused=False, seconds=0.0)
            record = record.model_copy(update={"stages": (*record.stages, stage)})
            yield record
        yield record.model_copy(update={"state": State.DONE, "val": RATES, "test": RATES})


class NothingTrainable(UbtTrainable):
    """Our trainable with a runner that does nothing."""

    def runner_on(self, node: str) -> TrialRunner:
        """Return the runner."""
        return NothingRunner(node)  # type: ignore[return-value]


def study(trials: int) -> StudyConfig:
    """Return a design of `trials` configurations that share their victim."""
    space = {"defense.unlearn_samples": {"low": 1, "high": trials}}
    resources = {"concurrent_trials": WORKERS}
    return StudyConfig.model_validate(
        {"name": "overhead", "search": {"design": "grid", "space": space}, "resources": resources}
    )


def run_ours(trials: int, folder: Path) -> tuple[float, float]:
    """Return the wall seconds of all, and of the trials after the first."""
    config = study(trials)
    began = time.perf_counter()
    concurrent = start_ray("local", config.resources, trials)
    run = folder / "ours"
    RunFolder(run).write_study(config)
    tracker = Tracker(config.tracking, run)
    clock = FirstEnd()
    session = Session(
        proposer=DesignProposer(config.proposals()),
        planner=TrialPlanner(config, str(folder / "store")),
        replicates=1,
        scheduler=StageScheduler(),
        records=run / "records",
        listeners=[tracker, clock],
    )
    run_on_ray(session, config.resources, concurrent, run, NothingTrainable)
    ended = time.perf_counter()
    stop_ray()
    tracker.close()
    return time.perf_counter() - began, ended - clock.seconds


class FirstEnd:
    """Notes when the first trial ended."""

    seconds = 0.0

    def updated(self, record: TrialRecord) -> None:
        """Note the time of the first end."""
        if record.state.ended and not self.seconds:
            self.seconds = time.perf_counter()


def run_plain(trials: int, folder: Path) -> float:
    """Return the wall seconds of a plain Tune run."""
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "0"
    began = time.perf_counter()
    start_ray("local", study(2).resources)
    from ray import tune  # noqa: PLC0415
    from ray.air.integrations.mlflow import MLflowLoggerCallback  # noqa: PLC0415

    callback = MLflowLoggerCallback(tracking_uri=f"sqlite:///{folder / 'plain.db'}", experiment_name="plain")
    tune.Tuner(
        tune.with_resources(plain_trial, {"cpu": 1}),
        param_space={"samples": tune.grid_search(list(range(trials)))},
        tune_config=tune.TuneConfig(max_concurrent_trials=WORKERS),
        run_config=tune.RunConfig(name="plain", storage_path=str(folder), verbose=0, callbacks=[callback]),
    ).fit()
    stop_ray()
    return time.perf_counter() - began


def plain_trial(config: dict[str, Any]) -> None:
    """Report once."""
    import open_clip  # noqa: F401, PLC0415 — as any function that runs a stage would
    from ray import tune  # noqa: PLC0415

    tune.report({"asr": 0.1, "ca": 0.9})


def main() -> None:
    """Measure both and print a table and a JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--plain-trials", type=int, default=16)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        wall, after_first = run_ours(arguments.trials, Path(folder))
        plain = run_plain(arguments.plain_trials, Path(folder))
    result = {
        "trials": arguments.trials,
        "wall_seconds": round(wall, 1),
        "seconds_a_trial": round(after_first / (arguments.trials - 1), 3),
        "seconds_a_trial_with_start": round(wall / arguments.trials, 3),
        "plain_trials": arguments.plain_trials,
        "plain_seconds_a_trial_with_start": round(plain / arguments.plain_trials, 3),
    }
    for name, value in result.items():
        print(f"{name:<36}{value}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
