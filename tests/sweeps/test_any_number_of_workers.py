"""The same study on one, two and three workers: the same trials, stops and front, whichever trial ends first."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from analysis import load_run
from ubt.trials.record import State, TrialRecord, read_records

pytestmark = pytest.mark.clusters

COMMAND = "from sweeps.cli.start import main; main()"
SEARCH = (
    "search={design: optuna, sampler: tpe, n_trials: 12, startup_trials: 4, lag: 4, "
    "stopping: {grace_epochs: 1, rung_spacing: 1, ca_floor: null, equals: crowding}, "
    "space: {defense.unlearn_learning_rate: {low: 1.0e-4, high: 1.0e-1, log: true}, defense.overfit_epochs: [1, 2], "
    "defense.unlearn_samples: [4, 8, 16]}}"
)


def swept(folder: Path, workers: int) -> tuple[list[TrialRecord], pd.DataFrame]:
    """Return the records and the front of the study on a Ray and with a store of its own."""
    folder.mkdir()
    settings = (
        f"store={folder}/store",
        f"resources.concurrent_trials={workers}",
        "tracking.enabled=false",
        "defense.unlearn_epochs=4",
        SEARCH,
    )
    words = ["sweep", "smoke", "--out", str(folder / "runs"), *(word for one in settings for word in ("--set", one))]
    subprocess.run([sys.executable, "-c", COMMAND, *words], check=True, cwd=folder, timeout=500)
    run = folder / "runs" / "smoke"
    return sorted(read_records(run / "records"), key=lambda record: record.trial), load_run(run).front


def what_happened(record: TrialRecord) -> tuple[object, ...]:
    """Return all of a record that does not say when, where and in which process."""
    epochs = [(stage.key, [(one.epoch, one.val) for one in stage.epochs]) for stage in record.stages]
    return record.trial, record.changes, record.state, record.reason, record.pruned, epochs, record.val, record.test


def test_the_trials_the_stops_and_the_front_are_the_same_on_one_two_and_three_workers(tmp_path: Path) -> None:
    (alone, front), *others = (swept(tmp_path / str(workers), workers) for workers in (1, 2, 3))
    assert {State.DONE, State.PRUNED} == {record.state for record in alone}
    for records, other_front in others:
        assert [what_happened(one) for one in records] == [what_happened(one) for one in alone]
        pd.testing.assert_frame_equal(other_front, front)
