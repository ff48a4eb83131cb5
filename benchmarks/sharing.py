"""Stage sharing against plain Ray Tune: the same 4-knob grid, the same stage functions, stores empty at the start.

    python benchmarks/sharing.py [--levels 3] [--skip-plain] [--syne]

Plain is what one writes without this package: a function trainable that runs all stages of its configuration,
`tune.grid_search`, and Ray's own `MLflowLoggerCallback`. With `--syne` the grid runs under Syne Tune's local backend,
too, a process a trial (`pip install --no-deps syne-tune dill`). All run two trials at a time, one after the other.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from datetime import datetime, timedelta
from itertools import product
from pathlib import Path
from typing import Any

from syne_trial import named

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
            "objectives": {"epochs": "last"},  # what peers do: no trials of earlier epochs
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
    if results.errors:
        raise SystemExit(f"a plain trial failed: {results.errors[0]}")
    rates = {result.metrics["identity"]: tuple(result.metrics["rates"]) for result in results}
    return time.perf_counter() - began, rates


def plain_trial(config: dict[str, Any]) -> None:
    """Run all stages of one configuration, as a plain Tune function does."""
    from ray import tune  # noqa: PLC0415

    rates = alone(config["template"], config["knobs"], Path(config["stores"]))
    tune.report({"identity": identity(config["knobs"]), "rates": rates})


def run_syne(config: StudyConfig, folder: Path) -> tuple[float, Rates]:
    """Run the grid under Syne Tune's local backend; return wall seconds and the rates.

    It has no scheduler for grids: its random searcher is handed all points, in the grid's order, and stops after them.
    How often it looks for trials that have ended is set as short as it goes, for its own sake.
    """
    began = time.perf_counter()
    from syne_tune import StoppingCriterion, Tuner  # noqa: PLC0415
    from syne_tune.backend import LocalBackend  # noqa: PLC0415
    from syne_tune.config_space import choice  # noqa: PLC0415
    from syne_tune.optimizer.schedulers.searchers.random_searcher import RandomSearcher  # noqa: PLC0415
    from syne_tune.optimizer.schedulers.single_objective_scheduler import SingleObjectiveScheduler  # noqa: PLC0415

    knobs = {path: list(values) for path, values in config.search.space.items()}  # type: ignore[call-overload]
    template = TrialPlanner(config, str(folder / "none"))(Proposal(0), 0).assignment.as_json()
    (_made(folder) / "template.json").write_text(json.dumps({"template": template, "space": knobs}))
    rates_there = _made(folder / "rates")
    space = {named(path): choice(values) for path, values in knobs.items()} | {"folder": str(folder)}
    points = [dict(zip(map(named, knobs), values, strict=True)) for values in product(*knobs.values())]
    searcher = RandomSearcher(space, points_to_evaluate=points)
    tuner = Tuner(
        LocalBackend(str(Path(__file__).with_name("syne_trial.py"))),
        SingleObjectiveScheduler(space, "asr", searcher=searcher),
        StoppingCriterion(max_num_trials_completed=len(points)),  # what it begins beyond them ends then
        n_workers=WORKERS,
        sleep_time=0.1,
        results_update_interval=60.0,
        print_update_interval=600.0,
        trial_backend_path=str(folder / "backend"),
    )
    tuner.run()
    wall = time.perf_counter() - began
    read = [json.loads(path.read_text()) for path in rates_there.glob("*.json")]
    return wall, {name: tuple(rates) for name, rates in read}


def alone(template: dict[str, Any], knobs: dict[str, Any], stores: Path) -> tuple[float, ...]:
    """Run all stages of one configuration in a store of its own; return its rates."""
    from ubt.config import set_path  # noqa: PLC0415
    from ubt.engine.runner import TrialRunner  # noqa: PLC0415

    tree = template["config"]
    for path, value in knobs.items():
        tree = set_path(tree, path, value)
    with tempfile.TemporaryDirectory(dir=_made(stores)) as store:
        own = {"config": tree, "store": store, "keys": ()}  # those of the template are of its own knobs
        assignment = Assignment.model_validate({**template, **own})
        return rates_of(list(TrialRunner().run(assignment))[-1])


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
    parser.add_argument("--skip-plain", action="store_true", help="leave plain Ray Tune out")
    parser.add_argument("--syne", action="store_true", help="run Syne Tune's local backend, too")
    arguments = parser.parse_args()
    config = study(arguments.levels)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        wall, records = run_shared(config.with_parts(store=str(root / "store")), root)
        peers = {} if arguments.skip_plain else {"plain": run_plain(config, root)}
        if arguments.syne:
            peers["syne_tune"] = run_syne(config, root / "syne")
    print_results(config, wall, records, peers)


def print_results(
    config: StudyConfig, wall: float, records: list[TrialRecord], peers: Mapping[str, tuple[float, Rates]]
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
    for peer, (seconds, found) in peers.items():
        result |= {
            f"{peer}_wall_seconds": round(seconds, 1),
            f"{peer}_times_as_long": round(seconds / wall, 2),
            f"{peer}_same_rates": rates == found,
        }
    for name, value in result.items():
        print(f"{name:<28}{value}")
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
