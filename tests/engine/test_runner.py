"""The trial boundary: whatever happens inside, a record comes out."""

import gc
import logging
import platform
import shutil
import weakref
from unittest.mock import Mock

import pytest
import torch
from fsspec.implementations.local import LocalFileSystem
from tiny_victim import assign, run_trial, tiny_trial

from ubt import __version__
from ubt.artifacts.store import ArtifactStore, UnusableStore
from ubt.common.errors import DamagedArtifact, Problem, StageFault, UserError, WeakImplant
from ubt.engine.runner import TrialRunner, says_nothing_of_the_trial
from ubt.stages import overfit, suspect

REUSED = {"defense.suspicious_ratio": 0.3}
"""A trial that shares all of the victim and begins with `suspect`."""


def test_the_last_record_is_done_and_those_before_it_are_running(tiny_run):
    assert [record.state.ended for record in tiny_run.records] == [False] * (len(tiny_run.records) - 1) + [True]
    assert tiny_run.record.state == "DONE"


def test_a_record_says_which_stage_is_being_computed_not_which_has_ended(tiny_run):
    names = [stage.stage for stage in tiny_run.record.stages]
    assert list(dict.fromkeys(record.at for record in tiny_run.records)) == [*names, ""]
    assert not tiny_run.records[0].stages, "one comes before the first stage, which may take long"
    behind = next(record for record in tiny_run.records if record.stages and record.stages[-1].complete)
    assert behind.at != behind.stages[-1].stage
    assert tiny_run.record.at == ""


def test_a_record_says_what_was_asked(tiny_run):
    record = tiny_run.record
    assert (record.study, record.trial, record.number, record.seed) == ("tiny", "tiny-0", 0, 0)
    assert record.config == tiny_trial().as_json()
    assert (record.reason, record.fault) == ("", "")


def test_a_record_says_where_when_and_with_what_it_ran(tiny_run):
    record = tiny_run.record
    assert record.device == ("cuda" if torch.cuda.is_available() else "cpu")
    assert record.started_at.endswith("+00:00")
    assert record.versions["torch"] == torch.__version__.split("+")[0]
    assert record.versions["ubt-sweeper"] == __version__
    assert record.seconds >= sum(stage.spent_seconds for stage in record.stages)
    seconds = [each.seconds for each in tiny_run.records]
    assert seconds == sorted(seconds)


REPORTED = {
    "detect_clean": {"pairs", "recall", "auroc"},
    "suspect": {"pairs", "recall", "precision", "auroc"},
    "overfit": {"auroc", "auroc_before", "similarity_poison", "similarity_clean"},
    "select": {"pairs", "purity", "recall"},
    "attribute": {"target_share"},
    "unlearn": {"pairs", "held_pairs", "clean_pairs", "tokens_per_caption"},
}
"""What METHOD.md asks of each stage."""


@pytest.mark.parametrize("stage", REPORTED)
def test_every_stage_reports_its_own_diagnostics(tiny_run, stage):
    found = next(each for each in tiny_run.record.stages if each.stage == stage)
    assert set(found.diagnostics) <= REPORTED[stage]
    # Of a handful of pairs there may be none that is poisoned.
    assert REPORTED[stage] - set(found.diagnostics) <= {"similarity_poison", "target_share", "auroc", "auroc_before"}


def test_the_victim_the_defended_model_and_every_epoch_are_evaluated(tiny_run):
    record = tiny_run.record
    for split in ("val", "test"):
        assert getattr(record, f"poisoned_{split}").ca_images == 48
        assert getattr(record, split).asr_images == 44
        assert 0 <= getattr(record, split).triggered_accuracy <= 1
    assert [(stage, epoch.epoch) for stage, epoch in record.epochs] == [("unlearn", 1), ("unlearn", 2)]


def test_every_stage_reports_seconds_memory_and_whether_it_was_reused(tiny_run):
    for stage in tiny_run.record.stages:
        assert stage.seconds > 0
        assert stage.peak_memory_bytes > 1e6
        assert stage.reused is False


def test_the_seconds_of_epochs_are_no_more_than_their_stages(tiny_run):
    for stage in tiny_run.record.stages:
        assert sum(epoch.seconds for epoch in stage.epochs) <= stage.seconds


# Failures


@pytest.mark.parametrize(
    ("error", "fault", "reason"),
    [
        (StageFault("the loss is nan at overfit epoch 2"), "StageFault", "the loss is nan at overfit epoch 2"),
        (UserError(Problem("a.csv", "is gone")), "UserError", "a.csv: is gone"),
        (RuntimeError("CUDA out of memory"), "RuntimeError", "RuntimeError: CUDA out of memory"),
        (MemoryError(), "MemoryError", "MemoryError: "),
        (OSError(28, "No space left on device"), "OSError", "OSError: [Errno 28] No space left on device"),
        (KeyError("poisoned"), "KeyError", "KeyError: 'poisoned'"),
        (AssertionError(), "AssertionError", "AssertionError: "),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_any_exception_ends_up_in_a_failed_record_with_its_reason(
    tiny_run, tmp_path, monkeypatch, error, fault, reason
):
    def fails(context):
        raise error

    monkeypatch.setattr(suspect, "suspect", fails)
    records = run_trial(tiny_run.copy(tmp_path), REUSED)
    assert [record.state for record in records[:-1]] == ["RUNNING"] * (len(records) - 1)
    last = records[-1]
    assert (last.state, last.fault, last.reason) == ("FAILED", fault, reason)
    assert [stage.stage for stage in last.stages] == ["pretrain", "poison", "implant", "detect_clean"]
    assert last.poisoned_val is not None
    assert last.val is None
    assert last.seconds > 0


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (OSError(28, "No space left on device"), True),
        (PermissionError(), True),
        (TimeoutError(), True),
        (ConnectionResetError(), True),
        (MemoryError(), True),
        (torch.OutOfMemoryError(), True),
        (UnusableStore(Problem("store s3://here", "cannot be read: no credentials")), True),
        (StageFault("the loss is nan"), False),
        (WeakImplant("it did not take"), False),
        (DamagedArtifact("x"), True),
        (RuntimeError("shapes"), False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_errors_that_say_nothing_of_the_trial_are_distinguished(error, lost):
    assert says_nothing_of_the_trial(error) is lost


class Unauthorised(Exception):
    """As the errors of clouds' clients are: no OSErrors."""


def test_a_store_whose_client_fails_in_its_own_way_says_nothing_of_the_trial(tiny_run, monkeypatch):
    def refuses(*_, **__):
        raise Unauthorised("the token has expired")

    monkeypatch.setattr(LocalFileSystem, "cat_file", refuses)
    last = run_trial(tiny_run.root)[-1]
    assert (last.state, last.fault, last.lost) == ("FAILED", "UnusableStore", True)
    assert "the token has expired" in last.reason


def test_a_failure_in_the_middle_of_a_stage_keeps_the_epochs_so_far(tiny_run, tmp_path, monkeypatch):
    original = overfit.run

    def fails_after_one(context):
        yield next(original(context))
        raise StageFault("the loss is nan at overfit epoch 2")

    monkeypatch.setattr(overfit, "run", fails_after_one)
    last = run_trial(tiny_run.copy(tmp_path), {"defense.overfit_epochs": 3})[-1]
    assert last.state == "FAILED"
    broken = last.stages[-1]
    assert (broken.stage, broken.complete, len(broken.epochs)) == ("overfit", False, 1)


def test_nothing_is_published_by_a_stage_that_failed(tiny_run, tmp_path, monkeypatch):
    root = tiny_run.copy(tmp_path)
    before = {(each.stage, each.key) for each in ArtifactStore(root).manifests()}
    monkeypatch.setattr(suspect, "suspect", lambda context: 1 / 0)
    assert run_trial(root, REUSED)[-1].fault == "ZeroDivisionError"
    assert {(each.stage, each.key) for each in ArtifactStore(root).manifests()} == before


def test_only_what_nobody_foresaw_is_worth_a_traceback_in_the_log(tiny_run, tmp_path, monkeypatch, caplog):
    root = tiny_run.copy(tmp_path)
    for error, tracebacks in ((StageFault("x"), 0), (RuntimeError("x"), 1)):
        caplog.clear()

        def fails(context, error=error):
            raise error

        monkeypatch.setattr(suspect, "suspect", fails)
        run_trial(root, REUSED)
        found = [record for record in caplog.records if record.levelno >= logging.ERROR]
        assert len(found) == tracebacks
        assert all(record.exc_info for record in found)


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit])
def test_an_interruption_is_no_failure_of_the_trial(tiny_run, tmp_path, monkeypatch, interruption):
    def interrupted(context):
        raise interruption

    monkeypatch.setattr(suspect, "suspect", interrupted)
    with pytest.raises(interruption):
        run_trial(tiny_run.copy(tmp_path), REUSED)


def test_a_configuration_that_is_none_is_a_failed_record_too(tmp_path):
    wrong = assign(tmp_path).model_copy(update={"config": {"victim": {"data": {"kind": "no such"}}}})
    (record,) = TrialRunner().run(wrong)
    assert (record.state, record.fault) == ("FAILED", "ValidationError")
    assert "no such" in record.reason


def test_a_store_that_cannot_be_written_is_a_failed_record_too(tmp_path):
    (tmp_path / "file").write_text("")
    record = run_trial(tmp_path / "file")[-1]
    assert record.state == "FAILED"
    assert "file" in record.reason


def test_other_data_than_the_sweep_was_planned_with_gives_no_artifact(tiny_run, tmp_path):
    record = run_trial(tmp_path, data_key="of another node's files")[-1]
    assert (record.state, record.fault, record.lost) == ("FAILED", "UnfitNode", True)
    assert f"node {platform.node()} has other content than the study was planned with" in record.reason
    assert not (tmp_path / "artifacts").exists()


def test_a_run_beside_a_trial_computes_some_of_its_stages_without_those_between(tiny_run, tmp_path):
    root = tiny_run.copy(tmp_path)
    before, store = {stage.stage: stage for stage in tiny_run.record.stages}, ArtifactStore(root)
    key = before["detect_clean"].key
    payloads = store.manifest("detect_clean", key).payloads
    for stage in ("implant", "detect_clean"):
        shutil.rmtree(root / "artifacts" / stage)
    record = run_trial(root, only=(key,), run="tiny-0+detect_clean")[-1]
    assert (record.state, record.trial) == ("DONE", "tiny-0")
    assert [(stage.stage, stage.reused) for stage in record.stages] == [("detect_clean", False)]
    assert store.manifest("detect_clean", key).payloads == payloads
    assert store.manifest("implant", before["implant"].key) is None


# What is kept between trials


def test_trials_of_one_victim_share_data_and_model_in_memory(tiny_run, tmp_path):
    root, runner = tiny_run.copy(tmp_path), TrialRunner()
    run_trial(root, runner=runner)
    first = runner._workspace
    assert run_trial(root, {"defense": {"kind": "none"}, "victim.implant.min_asr": 0.01}, runner)[-1].stages
    assert runner._workspace is first
    refused = run_trial(root, {"defense": {"kind": "none"}, "victim.implant.min_asr": 1.0}, runner)[-1]
    assert runner._workspace is first
    assert refused.fault == "WeakImplant", "the gate is the new trial's"


@pytest.mark.parametrize("change", ["data", "store", "model"])
def test_another_victim_or_store_gets_a_workspace_of_its_own(tiny_run, tmp_path, change):
    root, runner = tiny_run.copy(tmp_path), TrialRunner()
    run_trial(root, runner=runner)
    first = runner._workspace
    changes = {
        "data": {"victim.data.noise": 3.0},
        "model": {"victim.model.precision": "float32"},
        "store": {},
    }
    records = runner.run(assign(tmp_path / "new" if change == "store" else root, changes[change]))
    next(records)
    assert runner._workspace is not first


def test_a_failure_does_not_spoil_the_next_trial(tiny_run, tmp_path, monkeypatch):
    root, runner = tiny_run.copy(tmp_path), TrialRunner()
    monkeypatch.setattr(suspect, "suspect", lambda context: 1 / 0)
    assert run_trial(root, REUSED, runner)[-1].state == "FAILED"
    monkeypatch.undo()
    assert run_trial(root, REUSED, runner)[-1].state == "DONE"


def test_a_trial_computes_with_as_many_threads_as_assigned(tiny_run, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    try:
        run_trial(tiny_run.root, threads=2)
        assert torch.get_num_threads() == 2
    finally:
        run_trial(tiny_run.root, threads=1)
    assert torch.get_num_threads() == 1


def test_freed_memory_is_given_back_after_each_stage_that_is_computed(tiny_run, tmp_path, monkeypatch):
    given_back = Mock()
    monkeypatch.setattr("ubt.engine.pipeline.return_freed_memory", given_back)
    record = run_trial(tiny_run.copy(tmp_path), {"defense.unlearn_epochs": 3})[-1]
    computed = sum(not stage.reused for stage in record.stages)
    assert 0 < computed < len(record.stages)
    assert given_back.call_count == computed


def test_what_a_trial_has_loaded_is_freed_with_its_runner(tiny_run, tmp_path):
    """At once: nothing that it caught on the way leads to itself, and waits for the collector with all that called."""
    root, runner = tiny_run.copy(tmp_path), TrialRunner()
    gc.disable()
    try:
        assert run_trial(root, {"defense.unlearn_epochs": 3}, runner)[-1].state == "DONE"
        kept = weakref.ref(runner._workspace)
        runner.close()
        del runner
        assert kept() is None
    finally:
        gc.enable()
