"""Run the stages of one trial in this process: what the store has is used, what it lacks is computed."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping

from ubt.artifacts.codec import Artifact
from ubt.artifacts.manifest import ArtifactManifest
from ubt.common.errors import DamagedArtifact
from ubt.engine.execution import Execution, stage_record
from ubt.engine.graph import Node, Pipeline
from ubt.engine.spec import MANIFEST, imported
from ubt.engine.workspace import Workspace
from ubt.trials.config import TrialConfig
from ubt.trials.record import Rates, StageRecord

logger = logging.getLogger(__name__)

_ATTEMPTS = 3


class PipelineRun:
    """One trial's stages, one after the other. `stages` and `manifests` show what is done so far."""

    def __init__(
        self,
        pipeline: Pipeline,
        trial: TrialConfig,
        workspace: Workspace,
        keep_epochs: Mapping[str, tuple[int, ...]],
    ) -> None:
        self.stages: list[StageRecord] = []
        self._pipeline = pipeline
        self._trial = trial
        self._workspace = workspace
        self._keep_epochs = keep_epochs
        self._manifests: dict[str, ArtifactManifest] = {}
        """By role, as the newest stage fills it."""
        self._computed: dict[str, StageRecord] = {}  # by key: what this trial did, whatever happened later

    def steps(self) -> Iterator[StageRecord]:
        """Yield a record after every stage and epoch. A damaged artifact on the way is computed again.

        Raises:
            StageFault: if a stage cannot produce a usable artifact, or it makes no sense to go on from one.
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
        return Rates.model_validate(manifest.facts[split]) if manifest else None

    def _pass(self) -> Iterator[StageRecord]:
        self.stages = []
        self._manifests = {}
        for node in self._pipeline:
            manifest = self._workspace.manifest(node.spec.name, node.key)
            if manifest is not None:
                self.stages.append(self._computed.get(node.key) or stage_record(manifest, reused=True))
            else:
                yield from self._compute(node)
                manifest = self._workspace.manifest(node.spec.name, node.key)
                assert manifest is not None  # noqa: S101 — it was published just now
            self._manifests.update(dict.fromkeys(node.spec.provides, manifest))
            yield self.stages[-1]  # now that `rates` knows what the stage measured
            if node.spec.gate:
                imported(node.spec.gate)(manifest, self._trial, self._workspace.data)

    def _compute(self, node: Node) -> Iterator[StageRecord]:
        """Yield the stage's record while it is incomplete; the complete one is left in `stages`."""
        inputs = {role: self._load(role) for role in node.inputs}
        poison = self._load(MANIFEST) if MANIFEST in self._manifests else None
        execution = Execution(node, self._workspace, inputs, poison, self._keep_epochs.get(node.spec.name, ()))
        self.stages.append(StageRecord(stage=node.spec.name, key=node.key, reused=False, seconds=0.0, complete=False))
        for record in execution.steps():
            self.stages[-1] = record
            if not record.complete:
                yield record
        self._computed[node.key] = self.stages[-1]

    def _load(self, role: str) -> Artifact:
        manifest = self._manifests[role]
        artifact = self._workspace.load(manifest.stage, manifest.key)
        if artifact is None:
            raise DamagedArtifact(f"{manifest.stage} {manifest.key} has disappeared from the store")
        return artifact
