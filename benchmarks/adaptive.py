"""Stage sharing inside an Optuna search: 60 configurations over quantised knobs, some of which must fail.

    python benchmarks/adaptive.py [--trials 60] [--out FOLDER]

One value of the learning rate trains a model to pieces, so that failures are met too. What Optuna's own storage
says of the study in the end is printed beside what the records say; `optuna-dashboard FOLDER/adaptive/optuna.journal`
shows the same storage to people.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from pathlib import Path

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from sharing import SPACE, WORKERS, study

from sweeps.run.folder import RunFolder, new_run
from sweeps.run.launch import run_study
from sweeps.study.config import StudyConfig
from ubt.trials.record import StageRecord, State, read_records

RUINOUS = 1e4
"""A learning rate that no model survives."""


def adaptive_study(trials: int, store: Path) -> StudyConfig:
    """Return the small victim of `sharing.py` under a search by Optuna."""
    space = {**SPACE, "defense.unlearn_learning_rate": [1e-4, 2e-4, RUINOUS]}
    tree = study(levels=3).as_json()
    search = {"design": "optuna", "n_trials": trials, "space": space}
    return StudyConfig.model_validate({**tree, "name": "adaptive", "search": search, "store": str(store)})


def storage_states(run: RunFolder) -> Counter[str]:
    """Return how many trials of each state Optuna's storage has."""
    storage = JournalStorage(JournalFileBackend(str(run.journal)))
    (name,) = optuna.get_all_study_names(storage)
    return Counter(trial.state.name for trial in optuna.load_study(study_name=name, storage=storage).get_trials())


def measured(run: RunFolder) -> dict[str, object]:
    """Return what the search shared, and whether its storage is in order."""
    records = read_records(run.records)
    stages = [stage for record in records for stage in record.stages]
    computed = Counter(stage.key for stage in stages if not stage.reused)
    configurations = Counter(json.dumps(record.config, sort_keys=True) for record in records)
    return {
        "trials": len(records),
        "failed": sum(record.state is State.FAILED for record in records),
        "configurations_run_twice": sum(count - 1 for count in configurations.values()),
        "stages": len(stages),
        "share_of_stages_reused": round(1 - computed.total() / len(stages), 3),
        "share_of_seconds_saved": round(_saved(stages), 3),
        "computed_twice": sum(count - 1 for count in computed.values()),
        "optuna_states": dict(storage_states(run)),
    }


def _saved(stages: list[StageRecord]) -> float:
    saved, spent = sum(stage.saved_seconds for stage in stages), sum(stage.spent_seconds for stage in stages)
    return float(saved / (saved + spent))


def main() -> None:
    """Run the search and print a table and a JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--out", type=Path, help="folder that the run is kept in; none is kept by default")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = arguments.out or Path(folder)
        config = adaptive_study(arguments.trials, Path(folder) / "store")
        result = {"workers": WORKERS, **measured(run_study(config, new_run(root, config.name)).run)}
    for name, value in result.items():
        print(f"{name:<26}{value}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
