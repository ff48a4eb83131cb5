"""What a trial does about stages that other processes compute just now."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from memory_leases import MemoryLeases
from tiny_victim import assign, run_trial

from ubt.artifacts import lease_watch, leases
from ubt.artifacts.heartbeat import own_heartbeat
from ubt.artifacts.store import ArtifactStore
from ubt.engine import stage_leases
from ubt.engine.graph import Node, build_pipeline
from ubt.engine.runner import TrialRunner
from ubt.engine.stage_leases import slot_of
from ubt.trials.assignment import Assignment
from ubt.trials.config import TrialConfig

OTHER = {"defense.suspicious_ratio": 0.3}
"""A trial that shares all of the victim and begins with `suspect`."""


def node_of(assignment: Assignment, stage: str) -> Node:
    trial = TrialConfig.model_validate(assignment.config)
    pipeline = build_pipeline(trial, assignment.seed, assignment.data_key)
    return next(node for node in pipeline if node.spec.name == stage)


class Another:
    """Another process, of another machine, that holds the lease of a stage."""

    def __init__(self, root: Path, node: Node) -> None:
        files = ArtifactStore(root).lease_files()
        assert files
        self._files = files
        self._slot, self._name = slot_of(node), "another.1.elsewhere%2Ft0007"
        heartbeat = own_heartbeat().model_copy(update={"host": "node-7", "kernel": "another", "pid": 4711})
        files.announce("another", heartbeat.model_dump_json().encode())
        assert files.take(self._slot, self._name)

    def release(self) -> None:
        self._files.free(self._slot, self._name)


def test_a_stage_that_another_process_computes_is_named_and_left_to_it(tiny_run, tmp_path: Path) -> None:
    root = tiny_run.copy(tmp_path)
    select = node_of(assign(root, OTHER), "select")
    another = Another(root, select)
    *_, last = run_trial(root, OTHER)
    assert (last.lost, last.fault, last.waits_for) == (True, "Waits", select.key)
    assert last.reason == "`select` is being computed by elsewhere/t0007 on node-7 (process 4711)"
    assert [stage.stage for stage in last.stages][-1] == "overfit"
    another.release()
    *_, last = run_trial(root, OTHER)
    assert last.state == "DONE"
    assert next(stage.stage for stage in last.stages if not stage.reused) == "select"


def test_all_lengths_of_a_chain_of_epochs_are_one_piece_of_work(tiny_run, tmp_path: Path) -> None:
    root = tiny_run.copy(tmp_path)
    longer = {"defense.unlearn_epochs": 3}
    Another(root, node_of(assign(root), "unlearn"))
    *_, last = run_trial(root, longer)
    assert last.waits_for == node_of(assign(root, longer), "unlearn").key


def test_a_stage_that_came_while_its_lease_was_taken_is_not_computed(tiny_run, tmp_path: Path) -> None:
    root, done = tiny_run.copy(tmp_path / "one"), tiny_run.copy(tmp_path / "other")
    run_trial(done, OTHER)
    files = MemoryLeases()
    files.looks_may_be_old = True

    def publish() -> None:
        for folder in (done / "artifacts").glob("*/*"):
            there = root / folder.relative_to(done)
            if not there.exists():
                there.parent.mkdir(parents=True, exist_ok=True)
                folder.rename(there)

    files.before = publish
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ArtifactStore, "lease_files", lambda store: files)
        *_, last = run_trial(root, OTHER)
    assert last.state == "DONE"
    assert all(stage.reused for stage in last.stages)


def test_a_stage_costs_two_requests_and_a_reused_one_none(tiny_run, tmp_path: Path) -> None:
    root, files = tiny_run.copy(tmp_path), MemoryLeases()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ArtifactStore, "lease_files", lambda store: files)
        patch.setattr(leases, "BEAT_SECONDS", 600.0)  # however long a busy machine takes
        runner = TrialRunner()
        run_trial(root, runner=runner)
        assert files.steps == 0
        *_, last = run_trial(root, OTHER, runner)
        computed = sum(not stage.reused for stage in last.stages)
        runner.close()
    assert computed == 6
    assert files.steps <= 2 * computed + 2, "two of them for the heartbeat"
    assert (files.held, files.beats) == ({}, {})


def test_a_patient_run_waits_in_its_place_and_says_for_what(
    tiny_run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    root = tiny_run.copy(tmp_path)
    another = Another(root, node_of(assign(root, OTHER), "select"))
    looks: list[float] = []

    def sleep(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 3:
            another.release()

    monkeypatch.setattr(stage_leases.time, "sleep", sleep)
    monkeypatch.setattr(lease_watch, "FIRST_LINE_SECONDS", 0.0)
    monkeypatch.setattr(lease_watch, "LEASE_SECONDS", 0.0)
    with caplog.at_level(logging.WARNING):
        *_, last = TrialRunner(patient=True).run(assign(root, OTHER))
    assert last.state == "DONE"
    assert len(looks) == 3
    assert "tiny/tiny-0 waits for `select` since" in caplog.text
