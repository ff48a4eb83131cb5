"""A trial whose store is at an address: a stage is published while the next one computes."""

from __future__ import annotations

import threading
import time
import uuid

import pytest
from tiny_victim import assign, run_trial

from ubt.artifacts.store import ArtifactStore, UnusableStore
from ubt.common.errors import Problem
from ubt.engine.runner import TrialRunner


@pytest.fixture
def root() -> str:
    return f"memory://{uuid.uuid4().hex}"


def checksums(store: ArtifactStore) -> dict[str, dict[str, str]]:
    return {one.key: {name: p.checksum for name, p in one.payloads.items()} for one in store.manifests()}


def test_stages_go_on_meanwhile_and_count_as_complete_once_they_are_there(tiny_run, root, monkeypatch) -> None:
    original, store = ArtifactStore.put, ArtifactStore(root)

    def slow(self, complete, payloads) -> None:
        time.sleep(0.1)
        original(self, complete, payloads)

    monkeypatch.setattr(ArtifactStore, "put", slow)
    records = run_trial(root)
    early = 0
    for record in records:
        for stage in record.stages[:-1]:
            early += not stage.complete
        assert all(store.has(stage.stage, stage.key) for stage in record.stages if stage.complete)
    assert early, "no stage began while the one before it was being published"
    last = records[-1]
    assert (last.state, last.test, last.val) == ("DONE", tiny_run.record.test, tiny_run.record.val)
    assert all(stage.complete for stage in last.stages)
    assert checksums(store) == checksums(ArtifactStore(tiny_run.root))


def test_a_stage_that_cannot_be_published_is_a_fault_and_is_computed_again(root, monkeypatch) -> None:
    original, store, runner = ArtifactStore.put, ArtifactStore(root), TrialRunner()

    def refuses(self, complete, payloads) -> None:
        if complete.stage == "implant":
            raise UnusableStore(Problem(f"store {root}", "cannot be written: 403"))
        original(self, complete, payloads)

    with monkeypatch.context() as patched:
        patched.setattr(ArtifactStore, "put", refuses)
        *_, last = run_trial(root, runner=runner)
    assert (last.state, last.fault, last.lost) == ("FAILED", "UnusableStore", True)
    assert {one.stage for one in store.manifests()} == {"pretrain", "poison"}
    *_, again = run_trial(root, runner=runner)
    assert again.state == "DONE"
    reused = {stage.stage for stage in again.stages if stage.reused}
    assert reused == {"pretrain", "poison"}, "nothing that is in memory alone counts as published"


def test_a_record_is_refreshed_when_an_upload_has_ended_while_a_stage_computes(root, monkeypatch) -> None:
    let, original = threading.Event(), ArtifactStore.put

    def waits(self, complete, payloads) -> None:
        assert let.wait(30)
        original(self, complete, payloads)

    monkeypatch.setattr(ArtifactStore, "put", waits)
    runner = TrialRunner()
    records = runner.run(assign(root))
    record = next(one for one in records if one.stages and one.stages[-1].ended_at)
    assert not record.stages[-1].complete
    assert runner.refreshed(record) is None
    let.set()
    deadline = time.monotonic() + 30
    while (fresh := runner.refreshed(record)) is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert fresh
    assert fresh.stages[-1] == record.stages[-1].model_copy(update={"complete": True})
    records.close()
