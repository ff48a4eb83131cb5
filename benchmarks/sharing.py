"""Stage sharing against plain Ray Tune: the same 4-knob grid, the same stage functions, stores empty at the start.

    python benchmarks/sharing.py [--levels 3] [--skip-plain]

Plain is what one writes without this package: a function trainable that runs all stages of its configuration,
`tune.grid_search`, and Ray's own `MLflowLoggerCallback`. Both run two trials at a time, one after the other.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sweeps.backends.connection import start_ray
from sweeps.backends.lifetime import stop_ray
from sweeps.planning.trials import TrialPlanner
from sweeps.run.folder import new_run
from sweeps.run.launch import run_study
from sweeps.search.proposals import Proposal
from sweeps.study.config import StudyConfig
from ubt.trials.assignment import Assignment
from ubt.trials.record import State, TrialRecord, read_records

SPACE = {
    "defense.suspicious_ratio": [0.03, 0.05, 0.1],
    "defense.overfit_epochs": [1, 3, 5],
    "defense.token_threshold": [0.05, 0.1, 0.3],
    "defense.unlearn_samples": [16, 32, 64],
}
WORKERS = 2

Rates = dict[str, tuple[float, float, float, float]]
"""Configuration → ASR and CA on validation and test."""


def study(levels: int) -> StudyConfig:
    """Return a grid over a small embedded victim."""
    return StudyConfig.model_validate(
        {
            "name": "sharing",
            "victim": {
                "data": {"kind": "scenes", "pretrain_pairs": 1200, "train_pairs": 1200, "val_images": 240},
                "pretrain": {"epochs": 6, "batch_size": 64},
                "attack": {"kind": "badnets", "poison_rate": 0.05},
                "implant": {"epochs": 4, "batch_size": 64, "learning_rate": 1e-3, "min_asr": 0},
            },
            "defense": {"kind": "ubt"},
            "search": {"design": "grid", "space": {path: values[:levels] for path, values in SPACE.items()}},
            "resources": {"concurrent_trials": WORKERS},
        }
    )


def run_shared(config: StudyConfig, folder: Path) -> tuple[float, list[TrialRecord]]:
    """Run the grid with sharing; return wall seconds and the records."""
    began = time.perf_counter()
    outcome = run_study(config, new_run(folder, "shared"))
    return time.perf_counter() - began, read_records(outcome.run.records)


def run_plain(config: StudyConfig, folder: Path) -> tuple[float, Rates]:
    """Run the grid as a plain Tune function, each trial by itself; return wall seconds and the rates."""
    began = time.perf_counter()
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "0"
    start_ray("local", config.resources)
    from ray import tune  # noqa: PLC0415
    from ray.air.integrations.mlflow import MLflowLoggerCallback  # noqa: PLC0415

    template = TrialPlanner(config, str(folder / "none"))(Proposal(0), 0).assignment.as_json()
    tuner = tune.Tuner(
        tune.with_resources(plain_trial, {"cpu": 1}),
        param_space={
            "template": template,
            "stores": str(folder / "stores"),
            "knobs": {path: tune.grid_search(list(values)) for path, values in config.search.space.items()},  # type: ignore[arg-type]
        },
        tune_config=tune.TuneConfig(max_concurrent_trials=WORKERS),
        run_config=tune.RunConfig(
            name="plain",
            storage_path=str(folder),
            verbose=0,
            callbacks=[MLflowLoggerCallback(tracking_uri=f"sqlite:///{folder / 'plain.db'}", experiment_name="plain")],
        ),
    )
    results = tuner.fit()
    stop_ray()
    rates = {result.metrics["identity"]: tuple(result.metrics["rates"]) for result in results}
    return time.perf_counter() - began, rates


def plain_trial(config: dict[str, Any]) -> None:
    """Run all stages of one configuration, as a plain Tune function does."""
    from ray import tune  # noqa: PLC0415

    from ubt.config import set_path  # noqa: PLC0415
    from ubt.engine.runner import TrialRunner  # noqa: PLC0415

    tree = config["template"]["config"]
    for path, value in config["knobs"].items():
        tree = set_path(tree, path, value)
    with tempfile.TemporaryDirectory(dir=_made(Path(config["stores"]))) as store:
        assignment = Assignment.model_validate({**config["template"], "config": tree, "store": store})
        record = list(TrialRunner().run(assignment))[-1]
    tune.report({"identity": identity(config["knobs"]), "rates": rates_of(record)})


def identity(knobs: dict[str, Any]) -> str:
    """Return a configuration's name, the same on both sides."""
    return json.dumps({path: knobs[path] for path in sorted(knobs)})


def rates_of(record: TrialRecord) -> tuple[float, ...]:
    """Return ASR and CA on validation and test."""
    if record.state is not State.DONE or record.val is None or record.test is None:
        raise RuntimeError(f"{record.trial}: {record.reason}")
    return record.val.asr, record.val.ca, record.test.asr, record.test.ca


def main() -> None:
    """Run both and print a table and a JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--levels", type=int, default=3, help="values of each knob: 3 gives 81 trials")
    parser.add_argument("--skip-plain", action="store_true", help="run our side only")
    arguments = parser.parse_args()
    config = study(arguments.levels)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        wall, records = run_shared(config.with_parts(store=str(root / "store")), root)
        plain = None if arguments.skip_plain else run_plain(config, root)
    print_results(config, wall, records, plain)


def print_results(
    config: StudyConfig, wall: float, records: list[TrialRecord], plain: tuple[float, Rates] | None
) -> None:
    """Print what was measured."""
    computed = [stage for record in records for stage in record.stages if not stage.reused]
    counts = Counter(stage.key for stage in computed)
    work = sum(stage.spent_seconds for stage in computed)
    busy = _span_seconds(records)
    rates = {identity({p: _knob(record, p) for p in config.search.space}): rates_of(record) for record in records}
    result: dict[str, object] = {
        "trials": len(records),
        "stages_needed": sum(len(record.stages) for record in records),
        "stages_computed": len(computed),
        "computed_twice": sum(count - 1 for count in counts.values()),
        "unique_work_seconds": round(work, 1),
        "wall_seconds": round(wall, 1),
        "efficiency": round(work / (WORKERS * wall), 3),
        "efficiency_without_start": round(work / (WORKERS * busy), 3),
    }
    if plain is not None:
        result |= {
            "plain_wall_seconds": round(plain[0], 1),
            "speedup": round(plain[0] / wall, 2),
            "same_rates": rates == plain[1],
        }
    for name, value in result.items():
        print(f"{name:<26}{value}")
    print(json.dumps(result))


def _knob(record: TrialRecord, path: str) -> object:
    node: Any = record.config
    for part in path.split("."):
        node = node[part]
    return node


def _span_seconds(records: list[TrialRecord]) -> float:
    """Return the seconds from the first trial's start in a worker to the last one's end."""
    starts = [datetime.fromisoformat(record.started_at) for record in records]
    ends = [start + timedelta(seconds=record.seconds) for start, record in zip(starts, records, strict=True)]
    return (max(ends) - min(starts)).total_seconds()


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


if __name__ == "__main__":
    main()
