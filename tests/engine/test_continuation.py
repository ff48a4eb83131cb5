"""A stage that is ended goes on from its last epoch, in whichever process takes it up."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny_victim import assign

from ubt.artifacts.store import ArtifactStore, UnfinishedStore, UnusableStore
from ubt.common.errors import Problem, StageFault
from ubt.engine import epochs
from ubt.engine.graph import Node, build_pipeline
from ubt.engine.runner import TrialRunner
from ubt.trials.assignment import Assignment
from ubt.trials.config import TrialConfig
from ubt.trials.record import StageRecord, TrialRecord

TESTS = Path(__file__).parent.parent
FIVE, TWO = {"victim.implant.epochs": 5}, {"victim.implant.epochs": 2}
KILLED = """
import os, signal, sys
from test_continuation import FIVE, at_work, one_stage
from ubt.engine.runner import TrialRunner

for record in TrialRunner().run(one_stage(sys.argv[1], "implant", FIVE)):
    if at_work(record, "implant") == 3:
        os.kill(os.getpid(), signal.SIGKILL)
"""


def node_of(root: Path, stage: str, changes: dict[str, Any]) -> Node:
    given = assign(root, changes)
    pipeline = build_pipeline(TrialConfig.model_validate(given.config), given.seed, given.data_key)
    return next(node for node in pipeline if node.spec.name == stage)


def one_stage(root: Path, stage: str, changes: dict[str, Any], save_seconds: float = 0.0) -> Assignment:
    """A trial that computes one stage alone, of whose inputs the store has all."""
    return assign(root, changes, only=[node_of(root, stage, changes).key], save_seconds=save_seconds)


def at_work(record: TrialRecord, stage: str) -> int:
    """The epoch that a stage has just ended; 0 if it is at none."""
    last = record.stages[-1] if record.stages else None
    return last.epochs[-1].epoch if last and last.stage == stage and not last.complete and last.epochs else 0


def run(assignment: Assignment) -> StageRecord:
    *_, last = TrialRunner().run(assignment)
    assert last.state == "DONE", last.reason
    return last.stages[-1]


def end_at(assignment: Assignment, stage: str, epoch: int) -> None:
    """Run a trial until a stage has ended an epoch, and no further; its leases are given back."""
    runner = TrialRunner()
    records = runner.run(assignment)
    assert any(at_work(record, stage) == epoch for record in records)
    records.close()  # type: ignore[attr-defined]
    runner.close()


def bits(root: Path, stage: str, changes: dict[str, Any]) -> dict[str, str]:
    manifest = ArtifactStore(root).manifest(stage, node_of(root, stage, changes).key)
    assert manifest
    return {name: payload.checksum for name, payload in manifest.payloads.items()}


def saved(root: Path) -> dict[str, int]:
    return {one.stage: one.epochs[-1].epoch for one in UnfinishedStore(root).manifests()}


def test_an_implant_killed_at_epoch_3_of_5_resumes_there_bit_for_bit(tiny_run, tmp_path: Path, caplog) -> None:
    root, straight = tiny_run.copy(tmp_path), tiny_run.copy(tmp_path / "straight")
    path = ":".join(map(str, (TESTS, TESTS / "engine", TESTS.parent)))
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(root)], env={**os.environ, "PYTHONPATH": path}, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    assert saved(root) == {"implant": 2}
    assert not ArtifactStore(root).has("implant", node_of(root, "implant", FIVE).key)

    with caplog.at_level(logging.WARNING):
        resumed = run(one_stage(root, "implant", FIVE))
    assert resumed.resumed == "3 of 5"
    assert "`implant` resumed at epoch 3 of 5" in caplog.text
    assert [epoch.epoch for epoch in resumed.epochs] == [1, 2, 3, 4, 5]
    assert resumed.seconds > resumed.spent_seconds, "the two epochs of the other process are counted, too"
    undisturbed = run(one_stage(straight, "implant", FIVE, save_seconds=300))
    assert not (straight / "unfinished").exists(), "what takes less than that saves nothing"
    assert bits(root, "implant", FIVE) == bits(straight, "implant", FIVE)
    assert (undisturbed.resumed, [epoch.loss for epoch in undisturbed.epochs]) == (
        "",
        [epoch.loss for epoch in resumed.epochs],
    )
    assert saved(root) == {}, "which the artifact has made superfluous"


@pytest.mark.parametrize(
    ("stage", "changes"),
    [
        ("pretrain", {"victim.pretrain.epochs": 3}),
        ("unlearn", {"defense.unlearn_epochs": 3}),
    ],
)
def test_any_stage_that_trains_by_epochs_does(tiny_run, tmp_path: Path, stage: str, changes: dict[str, Any]) -> None:
    root, straight = tiny_run.copy(tmp_path), tiny_run.copy(tmp_path / "straight")
    end_at(one_stage(root, stage, changes), stage, 3)
    assert saved(root) == {stage: 2}
    assert run(one_stage(root, stage, changes)).resumed == "3 of 3"
    run(one_stage(straight, stage, changes, save_seconds=300))
    assert bits(root, stage, changes) == bits(straight, stage, changes)


def test_what_is_damaged_is_passed_over_and_the_stage_begins_anew(tiny_run, tmp_path: Path, caplog) -> None:
    root = tiny_run.copy(tmp_path)
    end_at(one_stage(root, "implant", TWO), "implant", 2)
    payload = next((root / "unfinished" / "implant").glob("*/model-*.bin"))
    payload.write_bytes(payload.read_bytes()[:-1] + b"!")
    with caplog.at_level(logging.WARNING):
        again = run(one_stage(root, "implant", TWO))
    assert (again.resumed, len(again.epochs)) == ("", 2)
    assert "what was saved of `implant` after epoch 1 is not used" in caplog.text
    assert saved(root) == {}


def test_a_stage_that_fails_by_its_method_leaves_nothing_to_go_on_from(tiny_run, tmp_path: Path, monkeypatch) -> None:
    original, root, were = epochs.train_on_pairs, tiny_run.copy(tmp_path), []

    def fails(*given: Any) -> Any:
        for number, loss in original(*given):
            if number == 2:
                were.append(saved(root))
                raise StageFault("the loss is nan")
            yield number, loss

    monkeypatch.setattr(epochs, "train_on_pairs", fails)
    *_, last = TrialRunner().run(one_stage(root, "implant", TWO))
    assert last.reason == "the loss is nan"
    assert (were, saved(root)) == ([{"implant": 1}], {})


def test_what_cannot_be_saved_does_not_end_the_training(tiny_run, tmp_path: Path, monkeypatch, caplog) -> None:
    def full(store: UnfinishedStore, *_: object) -> None:
        raise UnusableStore(Problem(f"store {store.root}", "cannot be written: No space left on device"))

    root = tiny_run.copy(tmp_path)
    monkeypatch.setattr(UnfinishedStore, "publish", full)
    with caplog.at_level(logging.WARNING):
        assert len(run(one_stage(root, "implant", TWO)).epochs) == 2
    assert "`implant` trains on, and what it needs to be continued cannot be saved: store" in caplog.text
