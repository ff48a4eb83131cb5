"""Run one trial in this process: its stages one after the other; every failure ends up in a record."""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch

from ubt.artifacts.patience import WORKERS_PATIENCE_SECONDS
from ubt.artifacts.store import ArtifactStore, UnusableStore, local_cache
from ubt.common.errors import DamagedArtifact, Fault, StageFault, StoppedByGate, UnfitNode, UserError, Waits
from ubt.common.memory import return_freed_memory
from ubt.common.progress import PULSE
from ubt.common.registry import load_plugins
from ubt.common.secrets import without_credentials
from ubt.data import content_key
from ubt.engine.graph import build_pipeline
from ubt.engine.pipeline import EarlyStop, PipelineRun, StoppedEarly
from ubt.engine.same_content import data_differs, files_differ, keys_differ
from ubt.engine.stage_leases import ProcessLeases
from ubt.engine.work import cpu_name, setup_of
from ubt.engine.workspace import Workspace
from ubt.models.clip import device_kind, memory_bytes, pick_device, use_threads
from ubt.trials.assignment import Assignment
from ubt.trials.config import TrialConfig
from ubt.trials.failures import failure_of
from ubt.trials.gates import Gates
from ubt.trials.record import Attempt, State, TrialRecord

logger = logging.getLogger(__name__)

VERSIONS = {name: version(name) for name in ("torch", "open_clip_torch", "numpy", "ubt-sweeper")}


class TrialRunner:
    """Runs one trial after the other in this process, keeping what they share in memory."""

    def __init__(self, node: str = "", patient: bool = False) -> None:
        self.node = node or platform.node()
        """What the node that this process runs on is called in records."""
        self._workspace: Workspace | None = None
        self._leases = ProcessLeases(patient)
        self._run: PipelineRun | None = None

    def refreshed(self, record: TrialRecord) -> TrialRecord | None:
        """Return the newest record of the trial that runs with what has been published since; None if nothing has.

        May be called from another thread, while a stage computes: others may wait for the one before it.
        """
        run = self._run
        known = {stage.key for stage in run.shown if stage.complete} if run else set()
        new = [stage.key for stage in record.stages if not stage.complete and stage.key in known]
        if not new:
            return None
        stages = tuple(one.model_copy(update={"complete": True}) if one.key in new else one for one in record.stages)
        return record.model_copy(update={"stages": stages})

    def close(self) -> None:
        """Give back what other processes may wait for."""
        self._leases.close()

    def run(self, assignment: Assignment) -> Iterator[TrialRecord]:
        """Yield the trial's record when it begins, and after every stage and epoch; the last is DONE or FAILED."""
        started, clock = datetime.now(UTC).isoformat(timespec="milliseconds"), time.perf_counter()
        attempt = Attempt(started_at=started, node=self.node, alone=assignment.alone)
        record = assignment.record(State.RUNNING).model_copy(
            update={"started_at": started, "versions": VERSIONS, "attempts": (attempt,)}
        )
        try:
            for record in self._steps(assignment, record):  # noqa: B020 — the newest record is what failed
                yield record.model_copy(update={"seconds": time.perf_counter() - clock})
        except Exception as error:  # noqa: BLE001 — the trial boundary, the one place for it
            if isinstance(error, MemoryError | torch.OutOfMemoryError):
                self._workspace = None  # the next run may need the memory
            self._settle()
            yield failed(record, error).model_copy(update={"seconds": time.perf_counter() - clock})
        finally:
            self._run = None
            return_freed_memory()

    def _steps(self, assignment: Assignment, record: TrialRecord) -> Iterator[TrialRecord]:
        use_threads(assignment.threads)
        self._refuse(files_differ(assignment))
        load_plugins(assignment.plugins)
        trial = TrialConfig.model_validate(assignment.config)
        workspace = self._workspace_for(trial, assignment)
        pipeline = build_pipeline(trial, assignment.seed, assignment.data_key)
        self._refuse(keys_differ(pipeline, assignment))
        name = f"{assignment.study}/{assignment.trial}"
        leases = self._leases.of_trial(workspace.store, name, pipeline, workspace.when_published)
        setup = setup_of(trial.victim.model, workspace.hardware, assignment.threads, assignment.gpus)
        kept, only = assignment.keep_epochs, assignment.only
        early, save = EarlyStop(assignment.stopping), assignment.save_seconds
        self._settle()
        run = PipelineRun(pipeline, trial, workspace, kept, assignment.gates, name, leases, setup, only, early, save)
        self._run = run
        data = workspace.data
        found = {"device": str(workspace.device), "device_memory_bytes": memory_bytes(workspace.device)}
        found |= {"device_kind": device_kind(workspace.device, cpu_name(), assignment.threads)}
        found |= {"classes": tuple(data.classes), "skipped": dict(data.skipped)}
        record = _so_far(record.model_copy(update=found), run)
        yield record  # a first stage may take hours: it is said what the trial is at
        try:
            for _ in run.steps():
                record = _so_far(record, run)
                yield record
            record = _so_far(record, run)  # now that all is published
        except StoppedByGate:
            workspace.settle()
            yield _so_far(record, run)  # with the gate that stopped it
            raise
        except StoppedEarly as stop:
            workspace.settle()
            ended = {"state": State.PRUNED, "reason": str(stop), "pruned": stop.pruned, "at": ""}
            yield _so_far(record, run).model_copy(update=ended)
            return
        results = {split: run.rates("rates", split) for split in ("val", "test")}
        yield record.model_copy(update={"state": State.DONE, "at": "", **results})

    def _settle(self) -> None:
        """Wait for what a trial has published, which has ended otherwise: what cannot be is no fault of another one."""
        with suppress(UnusableStore, DamagedArtifact):
            if self._workspace:
                self._workspace.settle()

    def _refuse(self, difference: str) -> None:
        """Raise `UnfitNode` if there is a difference: what is read here is not what the study was planned with."""
        if difference:
            raise UnfitNode(f"node {self.node} has other content than the study was planned with: {difference}")

    def _workspace_for(self, trial: TrialConfig, assignment: Assignment) -> Workspace:
        """Return the workspace in memory if the trial fits into it, else a new one, of data that has been checked."""
        kept, wanted = self._workspace, (trial.victim.data, trial.victim.model, pick_device(assignment.gpus))
        if kept is None or not kept.fits(*wanted) or kept.store.root != assignment.store:
            self._workspace = None  # let go of the old data before the new is loaded
            PULSE.begin("data")
            self._refuse(data_differs(trial.victim.data, assignment))
            store = ArtifactStore(assignment.store, WORKERS_PATIENCE_SECONDS)
            kept = Workspace(*wanted, store=store, image_cache=local_cache(assignment.store), node=self.node)
            self._workspace = kept
        return kept


def run_trial(
    trial: TrialConfig,
    store: str | Path,
    seed: int = 0,
    name: str = "trial",
    threads: int = 1,
    gpus: float = 0,
    gates: Gates | None = None,
) -> TrialRecord:
    """Run one trial in this process and return its last record, DONE or FAILED with a reason.

    Stages that `store` (a folder or URL) has are not computed again. The CPU computes with `threads` threads: with one,
    equal trials give equal bits on one kind of CPU.

    Example:
        ```python
        from ubt import TrialConfig, run_trial

        trial = TrialConfig.model_validate({"victim": {"attack": {"kind": "sig"}}, "defense": {"kind": "ubt"}})
        record = run_trial(trial, "store")
        print(record.state, record.test.asr, record.test.ca)
        ```

    Raises:
        UserError: if the data cannot be read.
    """
    assignment = Assignment(
        study=name,
        trial=name,
        number=0,
        seed=seed,
        config=trial.as_json(),
        data_key=content_key(trial.victim.data),
        store=str(store),
        threads=threads,
        gpus=gpus,
        gates=gates or Gates(),
    )
    with closing(TrialRunner(patient=True)) as runner:
        *_, last = runner.run(assignment)
    return last


def _so_far(record: TrialRecord, run: PipelineRun) -> TrialRecord:
    """Return a trial's record with what its stages and gates have come to."""
    return record.model_copy(
        update={
            "stages": run.shown,
            "at": run.at,
            "gates": tuple(run.gates),
            "clean_val": run.rates("clean_rates", "val"),
            "poisoned_val": run.rates("poisoned", "val"),
            "poisoned_test": run.rates("poisoned", "test"),
        }
    )


def failed(record: TrialRecord, error: Exception) -> TrialRecord:
    """Return the record with its reason. Only an unforeseen error is worth a traceback in the log."""
    kind, lost = _kind(error), says_nothing_of_the_trial(error)
    if isinstance(error, StageFault | UserError | Fault):
        reason = str(error)
    else:
        logger.error("trial %s failed", record.trial, exc_info=None if lost else error)
        reason = f"{kind}: {error}"
    return record.model_copy(
        update={
            "state": State.FAILED,
            "at": "",
            "reason": without_credentials(reason),
            "fault": kind,
            "lost": lost,
            "failure": failure_of(kind, lost),
            "waits_for": error.key if isinstance(error, Waits) else "",
        }
    )


def _kind(error: Exception) -> str:
    """Return the name of an error's class, by which a sweep knows what to do; numpy has a `MemoryError` of its own."""
    return "MemoryError" if isinstance(error, MemoryError) else type(error).__name__


def says_nothing_of_the_trial(error: Exception) -> bool:
    """Return whether an error comes from disk, network, store or memory, and might not come again."""
    return isinstance(error, OSError | MemoryError | torch.OutOfMemoryError | Fault)
