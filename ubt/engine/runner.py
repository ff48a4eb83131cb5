"""Run one trial in this process: its stages one after the other; every failure ends up in a record."""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import cast

import torch
from pydantic import JsonValue, ValidationError

from ubt.artifacts.codec import Artifact
from ubt.artifacts.leases import Leases
from ubt.artifacts.manifest import ArtifactManifest, Setup
from ubt.artifacts.patience import WORKERS_PATIENCE_SECONDS
from ubt.artifacts.store import ArtifactStore, local_cache
from ubt.common.errors import DamagedArtifact, NotFinite, StoppedByGate, UnfitNode
from ubt.common.progress import PULSE
from ubt.common.registry import load_plugins
from ubt.data import content_key
from ubt.engine.execution import Effort, Execution, stage_record
from ubt.engine.failed import failed
from ubt.engine.gates import Judged, finite_weights, judge, stop
from ubt.engine.graph import Node, Pipeline, build_pipeline
from ubt.engine.same_content import data_differs, files_differ, keys_differ
from ubt.engine.spec import MANIFEST
from ubt.engine.stage_leases import ProcessLeases, StageLeases
from ubt.engine.work import setup_of, work_of
from ubt.engine.workspace import Workspace
from ubt.models.clip import memory_bytes, pick_device, use_threads
from ubt.trials.assignment import Assignment
from ubt.trials.config import TrialConfig
from ubt.trials.gates import GateOutcome, Gates
from ubt.trials.rates import Rates
from ubt.trials.record import Attempt, StageRecord, State, TrialRecord

logger = logging.getLogger(__name__)

_ATTEMPTS = 3
MEASURED = {"clean_rates": ("val",), "poisoned": ("val", "test"), "rates": ("val", "test")}
"""Roles whose artifact says what a model is worth, and on which splits."""


class PipelineRun:
    """One trial's stages, one after the other. `stages` and `manifests` show what is done so far."""

    def __init__(
        self,
        pipeline: Pipeline,
        trial: TrialConfig,
        workspace: Workspace,
        keep_epochs: Mapping[str, tuple[int, ...]],
        gates: Gates | None = None,
        computed_by: str = "",
        leases: StageLeases | None = None,
        setup: Setup | None = None,
        only: Sequence[str] = (),
    ) -> None:
        self.stages: list[StageRecord] = []
        self.gates: list[GateOutcome] = []
        self._pipeline = pipeline
        self._trial = trial
        self._workspace = workspace
        self._keep_epochs = keep_epochs
        self._only = only
        self._thresholds = gates or Gates()
        self._computed_by = computed_by
        self._setup = setup
        self._leases = leases or StageLeases(Leases(None), workspace.store, computed_by, pipeline)
        self._manifests: dict[str, ArtifactManifest] = {}
        """By role, as the newest stage fills it."""
        self._computed: dict[str, StageRecord] = {}  # by key: what this trial did, whatever happened later

    def steps(self) -> Iterator[StageRecord]:
        """Yield a record after every stage and epoch. A damaged artifact on the way is computed again.

        Raises:
            StageFault: if a stage cannot produce a usable artifact, or a gate finds no sense in going on from one.
            Waits: if another process computes a stage just now.
        """
        for attempt in range(_ATTEMPTS):
            try:
                yield from self._pass()
                return
            except DamagedArtifact as damage:
                if attempt == _ATTEMPTS - 1:
                    raise
                logger.warning("%s; computing it again", damage)

    def rates(self, role: str, split: str) -> Rates | None:
        """Return what the stage that fills a role (`poisoned`, `rates`) measured on a split, once it has run."""
        manifest = self._manifests.get(role)
        if manifest is None:
            return None
        try:
            facts = cast("dict[str, JsonValue]", manifest.facts[split])
            return Rates.model_validate({**facts, "split": split}) if facts else None
        except (KeyError, TypeError, ValidationError) as error:
            raise self._workspace.damaged(manifest, f"has no rates of the {split} split") from error

    def _pass(self) -> Iterator[StageRecord]:
        self.stages, self.gates = [], []
        self._manifests = {}
        for node in self._pipeline:
            looked_at = time.monotonic()
            manifest = self._workspace.manifest(node.spec.name, node.key)
            if self._only and node.key not in self._only:
                self._manifests.update(dict.fromkeys(node.spec.provides, manifest) if manifest else {})
                continue
            if manifest is None:
                with self._leases.held(node, looked_at) as manifest:
                    if manifest is None:
                        yield from self._compute(node)
            if manifest is not None:
                self.stages.append(self._computed.get(node.key) or stage_record(manifest, reused=True))
            else:
                manifest = self._workspace.manifest(node.spec.name, node.key)
                if manifest is None:
                    raise DamagedArtifact(f"{node.spec.name} {node.key}, published just now, has gone from the store")
            self._manifests.update(dict.fromkeys(node.spec.provides, manifest))
            self._check_rates(node)
            self._judge(node, manifest)
            yield self.stages[-1]  # now that `rates` knows what the stage measured

    def _check_rates(self, node: Node) -> None:
        """Read what a stage measured while it can still be computed again: no checksum watches over a description."""
        for role, split in ((filled, split) for filled in node.spec.provides for split in MEASURED.get(filled, ())):
            self.rates(role, split)

    def _judge(self, node: Node, manifest: ArtifactManifest) -> None:
        """Note what the stage's gates find; raises `StoppedByGate` if one finds no sense in going on."""
        judged = Judged(manifest, self._trial, self._thresholds, len(self._workspace.data.classes))
        self.gates += judge(node.spec.gates, judged)
        if self.gates and self.gates[-1].outcome == "stopped":
            raise stop(self.gates[-1])

    def _compute(self, node: Node) -> Iterator[StageRecord]:
        """Yield the stage's record while it is incomplete; the complete one is left in `stages`."""
        PULSE.begin(node.spec.name)
        inputs = {role: self._load(role) for role in node.inputs}
        poison = self._load(MANIFEST) if MANIFEST in self._manifests else None
        kept = self._keep_epochs.get(node.spec.name, ())
        effort = Effort(self._setup, lambda one: work_of(one, self._trial, self._workspace.data.sizes))
        execution = Execution(node, self._workspace, inputs, poison, kept, self._computed_by, effort)
        self.stages.append(StageRecord(stage=node.spec.name, key=node.key, reused=False, seconds=0.0, complete=False))
        try:
            for record in execution.steps():
                self.stages[-1] = record
                if not record.complete:
                    yield record
        except NotFinite as fault:
            self.gates.append(finite_weights(node.spec.name, fault))
            raise
        self._computed[node.key] = self.stages[-1]

    def _load(self, role: str) -> Artifact:
        manifest = self._manifests[role]
        artifact = self._workspace.load(manifest.stage, manifest.key)
        if artifact is None:
            raise DamagedArtifact(f"{manifest.stage} {manifest.key} has disappeared from the store")
        return artifact


VERSIONS = {name: version(name) for name in ("torch", "open_clip_torch", "numpy", "ubt-sweeper")}


class TrialRunner:
    """Runs one trial after the other in this process, keeping what they share in memory."""

    def __init__(self, node: str = "", patient: bool = False) -> None:
        self.node = node or platform.node()
        """What the node that this process runs on is called in records."""
        self._workspace: Workspace | None = None
        self._leases = ProcessLeases(patient)

    def close(self) -> None:
        """Give back what other processes may wait for."""
        self._leases.close()

    def run(self, assignment: Assignment) -> Iterator[TrialRecord]:
        """Yield the trial's record after every stage and epoch; the last one is DONE or FAILED with a reason."""
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
            yield failed(record, error).model_copy(update={"seconds": time.perf_counter() - clock})

    def _steps(self, assignment: Assignment, record: TrialRecord) -> Iterator[TrialRecord]:
        use_threads(assignment.threads)
        self._refuse(files_differ(assignment))
        load_plugins(assignment.plugins)
        trial = TrialConfig.model_validate(assignment.config)
        workspace = self._workspace_for(trial, assignment)
        pipeline = build_pipeline(trial, assignment.seed, assignment.data_key)
        self._refuse(keys_differ(pipeline, assignment))
        name = f"{assignment.study}/{assignment.trial}"
        leases = self._leases.of_trial(workspace.store, name, pipeline)
        setup = setup_of(trial.victim.model, workspace.hardware, assignment.threads, assignment.gpus)
        kept, only = assignment.keep_epochs, assignment.only
        run = PipelineRun(pipeline, trial, workspace, kept, assignment.gates, name, leases, setup, only)
        data = workspace.data
        found = {"device": str(workspace.device), "device_memory_bytes": memory_bytes(workspace.device)}
        found |= {"classes": tuple(data.classes), "skipped": dict(data.skipped)}
        record = record.model_copy(update=found)
        try:
            for _ in run.steps():
                record = _so_far(record, run)
                yield record
        except StoppedByGate:
            yield _so_far(record, run)  # with the gate that stopped it
            raise
        results = {split: run.rates("rates", split) for split in ("val", "test")}
        yield record.model_copy(update={"state": State.DONE, **results})

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
            "stages": tuple(run.stages),
            "gates": tuple(run.gates),
            "clean_val": run.rates("clean_rates", "val"),
            "poisoned_val": run.rates("poisoned", "val"),
            "poisoned_test": run.rates("poisoned", "test"),
        }
    )
