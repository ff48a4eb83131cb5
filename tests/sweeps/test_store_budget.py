"""A store's budget while a sweep runs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from sweeps.planning.trials import PlannedTrial, TrialPlanner
from sweeps.run.folder import new_run
from sweeps.run.launch import run_study
from sweeps.scheduling.store_budget import StoreBudget, keys_of_front
from sweeps.search.proposals import Proposal
from sweeps.study.config import StudyConfig
from ubt.artifacts.leases import Leases
from ubt.artifacts.manifest import ArtifactManifest
from ubt.artifacts.store import ArtifactStore, UnfinishedStore
from ubt.testing import TINY
from ubt.trials.record import State, read_records

OVERFIT = "defense.overfit_epochs"
MB = 10**6


def study(store: Path, **fields: Any) -> StudyConfig:
    given = {"name": "tiny", **TINY, "search": {"design": "grid", "space": {OVERFIT: [1, 2, 3]}}, "store": str(store)}
    return StudyConfig.model_validate(given | {"tracking": {"enabled": False}} | fields)


class Sweep:
    """Three trials over one victim, of each stage of which the store has a megabyte, the older the later the trial."""

    def __init__(self, root: Path, budget_mb: int, front: Sequence[int] = ()) -> None:
        self.store = ArtifactStore(root)
        front_keys: list[str] = []
        self.budget = StoreBudget(budget_mb * MB, str(root), lambda: frozenset(front_keys))
        planner = self.budget.watching(TrialPlanner(study(root), str(root)))
        self.trials: list[PlannedTrial] = [planner(Proposal(number, {OVERFIT: number + 1}), 0) for number in range(3)]
        for at in front:
            front_keys += [node.key for node in self.trials[at].pipeline]
        for number, trial in enumerate(self.trials):
            for node in trial.pipeline:
                if not self.store.has(node.spec.name, node.key):
                    self._publish(node.spec.name, node.key, number)

    def _publish(self, stage: str, key: str, number: int) -> None:
        described = ArtifactManifest(stage=stage, key=key, version=1, seed=0, settings={}, inputs={})
        self.store.publish(described, {"tensors": bytes(MB)})
        at = 1_700_000_000 - number
        os.utime(Path(self.store.root) / "artifacts" / stage / key / "meta.json", (at, at))

    def end(self, number: int) -> None:
        assignment = self.trials[number].assignment
        self.budget.updated(assignment.record(State.DONE))

    def own(self, number: int) -> set[str]:
        """What no other trial needs."""
        keys = [{node.key for node in trial.pipeline} for trial in self.trials]
        others: set[str] = set().union(*(each for at, each in enumerate(keys) if at != number))
        return keys[number] - others

    def there(self) -> set[str]:
        return {manifest.key for manifest in self.store.manifests()}


def test_what_trials_need_that_are_left_stays_even_above_the_budget(tmp_path: Path, caplog) -> None:
    sweep = Sweep(tmp_path, budget_mb=1)
    before = sweep.there()
    assert sweep.budget.apply().leaving == ()
    sweep.end(0)
    sweep.budget.apply()
    continued = {node.key for node in sweep.trials[0].pipeline if node.spec.name == "overfit"}
    assert before - sweep.there() == sweep.own(0) - continued, "others go on from its epoch of overfitting"
    assert "the trials that are left need" in caplog.text


def test_of_what_is_not_needed_no_more_goes_than_must_and_the_front_last(tmp_path: Path) -> None:
    everything = len(Sweep(tmp_path / "counted", 1).there())
    sweep = Sweep(tmp_path / "store", budget_mb=everything - 3, front=[2])
    for number in range(3):
        sweep.end(number)
    found = sweep.budget.apply()
    gone = [one.key for one in found.leaving]
    assert len(gone) == 3
    assert set(gone) <= sweep.own(1), "trial 2 was used longer ago, and is on the front"
    sweep.budget.apply()
    assert len(sweep.there()) == everything - 3


def test_what_another_sweep_computes_with_stays(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, budget_mb=1)
    other = Leases(sweep.store.lease_files())
    other.take("overfit/key", "another/t0000", sorted(sweep.own(1)))
    for number in range(3):
        sweep.end(number)
    sweep.budget.apply()
    assert sweep.there() == sweep.own(1)
    other.close()


def test_what_is_unfinished_takes_its_part_of_the_budget(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, budget_mb=1)
    everything = len(sweep.there())
    described = ArtifactManifest(stage="implant", key="slot", version=1, seed=0, settings={}, inputs={})
    UnfinishedStore(tmp_path).publish(described, {"model": bytes(2 * MB)})
    budget = StoreBudget(everything * MB, str(tmp_path), frozenset)
    assert len(budget.apply().leaving) == 2


def test_a_store_that_cannot_be_read_does_not_end_a_sweep(tmp_path: Path, caplog, monkeypatch) -> None:
    sweep = Sweep(tmp_path, budget_mb=1)

    def fails() -> None:
        raise OSError("Input/output error")

    monkeypatch.setattr(sweep.budget._store, "manifests", fails)
    assert sweep.budget.apply() is None
    assert "the store cannot be kept within its budget: Input/output error" in caplog.text


@pytest.mark.slow
def test_a_sweep_within_a_budget_has_the_rates_that_it_has_without(tiny_run, tmp_path: Path) -> None:
    root = tiny_run.copy(tmp_path)
    search = {"design": "grid", "space": {OVERFIT: [1, 2]}}
    gates = {"clean_accuracy": {"act": "report"}}
    size = sum(manifest.size_bytes for manifest in ArtifactStore(root).manifests())
    small = study(root, search=search, gates=gates, store_budget=size + 100_000)
    end = run_study(small, new_run(tmp_path / "runs", "tiny"), "inline")
    assert end.all_done
    records = read_records(end.run.records)
    assert {record.state for record in records} == {State.DONE}
    assert tiny_run.record.test in {record.test for record in records}
    left = {manifest.key: manifest.size_bytes for manifest in ArtifactStore(root).manifests()}
    assert sum(left.values()) <= size + 100_000
    made = {stage.key for record in records for stage in record.stages}
    assert made - left.keys(), "two trials do not fit: the front gives way last"
    assert keys_of_front(end.run.path) <= made
