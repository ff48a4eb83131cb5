"""A 10,000-trial plan, its scheduler and its records, with stages that take no time: what the sweeper itself costs.

python benchmarks/scale.py [--trials 10000] [--resumed 1000]
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path
from statistics import mean, quantiles

from sweeps.planning.plan import plan_study
from sweeps.planning.trials import TrialPlanner
from sweeps.scheduling.session import Session
from sweeps.scheduling.stage_scheduler import StageScheduler
from sweeps.search.proposals import DesignProposer
from sweeps.study.config import StudyConfig
from ubt.engine.graph import build_pipeline
from ubt.trials.assignment import Assignment
from ubt.trials.config import TrialConfig
from ubt.trials.rates import Rates
from ubt.trials.record import StageRecord, State, TrialRecord, read_records

WORKERS = 64
RATES = Rates(
    ca=0.9,
    ca_images=100,
    asr=0.1,
    asr_images=90,
    ca_low=0.8,
    ca_high=0.95,
    asr_low=0.05,
    asr_high=0.2,
    triggered_accuracy=0.8,
)


def study(trials: int, store: str) -> StudyConfig:
    """Return a grid of `trials` configurations over four knobs."""
    side = round(trials**0.25)
    space = {
        "defense.suspicious_ratio": {"low": 0.01, "high": 0.01 * side, "step": 0.01},
        "defense.overfit_epochs": {"low": 1, "high": side},
        "defense.token_threshold": {"low": 0.01, "high": 0.01 * side, "step": 0.01},
        "defense.unlearn_samples": {"low": 8, "high": 8 * side, "step": 8},
    }
    return StudyConfig.model_validate(
        {"name": "scale", "store": store, "search": {"design": "grid", "space": space}, "tracking": {"enabled": False}}
    )


def session_of(config: StudyConfig, folder: Path) -> Session:
    """Return a session as a sweep makes it."""
    return Session(
        proposer=DesignProposer(config.proposals()),
        planner=TrialPlanner(config, config.store or ""),
        replicates=1,
        scheduler=StageScheduler(),
        records=folder,
        known=read_records(folder),
    )


def simulated(assignment: Assignment) -> TrialRecord:
    """Return the record of a trial that has computed all its stages in no time."""
    pipeline = build_pipeline(TrialConfig.model_validate(assignment.config), assignment.seed, assignment.data_key)
    stages = tuple(StageRecord(stage=node.spec.name, key=node.key, reused=False, seconds=0.0) for node in pipeline)
    return assignment.record(State.DONE).model_copy(update={"stages": stages, "val": RATES, "test": RATES})


def run_simulated(session: Session) -> list[float]:
    """Run all trials on simulated workers; return the seconds of each suggestion."""
    running: list[Assignment] = []
    seconds: list[float] = []
    while True:
        began = time.perf_counter()
        assignment = session.next_assignment() if len(running) < WORKERS else None
        seconds.append(time.perf_counter() - began)
        if assignment is not None:
            running.append(assignment)
        elif running:
            ending = running.pop(0)
            session.ended(ending.trial, simulated(ending))
        else:
            return seconds


def main() -> None:
    """Measure and print a table and a JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--resumed", type=int, default=1_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder), arguments.trials, arguments.resumed)
    for name, value in result.items():
        print(f"{name:<34}{value}")
    print(json.dumps(result))


def measure(folder: Path, trials: int, resumed: int) -> dict[str, float]:
    """Return all figures."""
    config = study(trials, str(folder / "store"))
    began = time.perf_counter()
    plan = plan_study(config)
    planning = time.perf_counter() - began
    began = time.perf_counter()
    session = session_of(config, folder / "records")
    seconds = run_simulated(session)
    whole = time.perf_counter() - began
    first, later = seconds[0], seconds[1:]
    return {
        "trials": plan.trials,
        "stages_needed": plan.total,
        "stages_unique": plan.unique,
        "planning_seconds": round(planning, 2),
        "first_suggestion_seconds": round(first, 2),
        "suggestion_mean_ms": round(1000 * mean(later), 3),
        "suggestion_p99_ms": round(1000 * quantiles(later, n=100)[98], 3),
        "suggestion_max_ms": round(1000 * max(later), 3),
        "run_seconds_a_trial_ms": round(1000 * whole / plan.trials, 2),
        "resume_seconds": round(resume_seconds(folder, resumed), 2),
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000),
    }


def resume_seconds(folder: Path, trials: int) -> float:
    """Return how long a study of `trials` finished trials takes until it knows that nothing is left to do."""
    config = study(trials, str(folder / "store"))
    run_simulated(session_of(config, folder / "resumed"))
    began = time.perf_counter()
    session = session_of(config, folder / "resumed")
    if session.next_assignment() is not None:
        raise RuntimeError("a finished study has a trial left")
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
