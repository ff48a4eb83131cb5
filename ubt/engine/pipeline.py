"""One trial's stages, one after the other, each found in the store or computed; and where its rule ends it early."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import cast

from pydantic import JsonValue, ValidationError

from ubt.artifacts.codec import Artifact
from ubt.artifacts.leases import Leases
from ubt.artifacts.manifest import ArtifactManifest, Setup
from ubt.artifacts.unfinished import Unfinished
from ubt.common.errors import DamagedArtifact, NotFinite
from ubt.common.memory import return_freed_memory
from ubt.common.progress import PULSE
from ubt.engine.execution import Execution, stage_record
from ubt.engine.gates import Judged, finite_weights, judge, stop
from ubt.engine.graph import Node, Pipeline
from ubt.engine.spec import MANIFEST
from ubt.engine.stage_leases import StageLeases
from ubt.engine.work import Effort, work_of
from ubt.engine.workspace import Workspace
from ubt.trials.config import TrialConfig
from ubt.trials.gates import GateOutcome, Gates
from ubt.trials.rates import Rates
from ubt.trials.record import EpochRecord, StageRecord
from ubt.trials.stopping import Pruned, StopRule, judged_epochs

logger = logging.getLogger(__name__)

_ATTEMPTS = 3
MEASURED = {"clean_rates": ("val",), "poisoned": ("val", "test"), "rates": ("val", "test")}
"""Roles whose artifact says what a model is worth, and on which splits."""


class StoppedEarly(Exception):
    """A trial ends before its last epoch, as its rule says: no error, but the way out of its pipeline."""

    def __init__(self, pruned: Pruned, reason: str) -> None:
        super().__init__(reason)
        self.pruned = pruned


class EarlyStop:
    """Applies the rule of one trial, if it has one."""

    def __init__(self, rule: StopRule | None) -> None:
        self._rule = rule

    def stops(self, node: Node, epochs: Sequence[EpochRecord], poisoned: Rates | None) -> bool:
        """Tell whether the trial ends with a stage's epochs up to now."""
        return self._found(node, epochs, poisoned) is not None

    def cut(self, node: Node, stage: StageRecord, poisoned: Rates | None) -> StageRecord:
        """Return a stage's record as far as the epoch with which the trial ends; as it is if the trial goes on.

        What the store has of later epochs does not count: a trial ends alike whether others have computed it or not.
        """
        if (found := self._found(node, stage.epochs, poisoned)) is None:
            return stage
        kept = tuple(epoch for epoch in stage.epochs if epoch.epoch <= found.epoch)
        seconds = stage.seconds - sum(epoch.seconds for epoch in stage.epochs[len(kept) :])
        return stage.model_copy(update={"epochs": kept, "complete": False, "seconds": max(0.0, seconds)})

    def check(self, node: Node, stage: StageRecord, poisoned: Rates | None) -> None:
        """Raise `StoppedEarly` if the trial ends with this stage."""
        if self._rule and (found := self._found(node, stage.epochs, poisoned)):
            judged = judged_epochs(stage.epochs, self._rule.choice)
            raise StoppedEarly(found, self._rule.reason(found, judged, poisoned.ca if poisoned else None))

    def _found(self, node: Node, epochs: Sequence[EpochRecord], poisoned: Rates | None) -> Pruned | None:
        if self._rule is None or node.spec.name != self._rule.stage:
            return None
        judged = judged_epochs(epochs, self._rule.choice)
        return self._rule.first_stop(judged, node.epochs, poisoned.ca if poisoned else None)


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
        early_stop: EarlyStop | None = None,
        save_seconds: float | None = None,
    ) -> None:
        """Run a pipeline; what continuing a stage needs is saved at most every so many seconds, or never if None."""
        self.stages: list[StageRecord] = []
        self.gates: list[GateOutcome] = []
        self._pipeline = pipeline
        self._trial = trial
        self._workspace = workspace
        self._keep_epochs = keep_epochs
        self._only = only
        self._early_stop = early_stop or EarlyStop(None)
        self._save_seconds = save_seconds
        self._thresholds = gates or Gates()
        self._computed_by = computed_by
        self._setup = setup
        self._leases = leases or StageLeases(Leases(None), workspace.store, computed_by, pipeline)
        self._manifests: dict[str, ArtifactManifest] = {}
        """By role, as the newest stage fills it."""
        self._computed: dict[str, StageRecord] = {}  # by key: what this trial did, not changed by what happened later

    def steps(self) -> Iterator[StageRecord]:
        """Yield a record after every stage and epoch. A damaged artifact on the way is computed again.

        Raises:
            StageFault: if a stage cannot produce a usable artifact, or a gate finds no sense in going on from one.
            Waits: if another process computes a stage just now.
            StoppedEarly: if the trial's rule says so.
        """
        for attempt in range(_ATTEMPTS):
            try:
                yield from self._pass()
                self._workspace.settle()
                return
            except DamagedArtifact as damage:
                if attempt == _ATTEMPTS - 1:
                    raise
                logger.warning("%s; computing it again", damage)

    @property
    def shown(self) -> tuple[StageRecord, ...]:
        """Return the stages as others may take them: one that is not published yet is not complete."""
        pending = self._workspace.pending
        return tuple(
            stage.model_copy(update={"complete": False}) if stage.key in pending else stage for stage in self.stages
        )

    @property
    def at(self) -> str:
        """Return the name of the stage that is being computed: the first that has not ended; empty if all have."""
        ended = {stage.key for stage in self.stages if stage.complete}
        left = (node for node in self._pipeline if node.key not in ended and (not self._only or node.key in self._only))
        return next((node.spec.name for node in left), "")

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
        self._workspace.settle()
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
                        return_freed_memory()  # else it is kept beside what the next stage takes
            if manifest is not None:
                self._workspace.store.note_used(manifest)
                self.stages.append(self._computed.get(node.key) or stage_record(manifest, reused=True))
            else:
                manifest = self._workspace.manifest(node.spec.name, node.key)
                if manifest is None:
                    raise DamagedArtifact(f"{node.spec.name} {node.key}, published just now, has gone from the store")
            self._end_early(node)
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
        stops = partial(self._early_stop.stops, node, poisoned=self.rates("poisoned", "val"))
        left = self._unfinished(node)
        execution = Execution(node, self._workspace, inputs, poison, kept, self._computed_by, effort, stops, left)
        self.stages.append(StageRecord(stage=node.spec.name, key=node.key, reused=False, seconds=0.0, complete=False))
        try:
            for record in execution.steps():
                self.stages[-1] = record
                if not record.complete:
                    yield record
        except NotFinite as fault:
            self.gates.append(finite_weights(node.spec.name, fault))
            raise
        self._end_early(node)
        self._computed[node.key] = self.stages[-1]

    def _unfinished(self, node: Node) -> Unfinished | None:
        """Return what is saved of a stage while it is computed; None if nothing is to be."""
        if self._save_seconds is None:
            return None
        return Unfinished(self._workspace.store, node.spec.name, node.chain, self._save_seconds)

    def _end_early(self, node: Node) -> None:
        """Raise `StoppedEarly` if the trial ends with its newest stage, whose record then goes as far as it counts."""
        poisoned = self.rates("poisoned", "val")
        self.stages[-1] = self._early_stop.cut(node, self.stages[-1], poisoned)
        self._early_stop.check(node, self.stages[-1], poisoned)

    def _load(self, role: str) -> Artifact:
        manifest = self._manifests[role]
        artifact = self._workspace.load(manifest.stage, manifest.key)
        if artifact is None:
            raise DamagedArtifact(f"{manifest.stage} {manifest.key} has disappeared from the store")
        return artifact
