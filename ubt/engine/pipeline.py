"""Run the stages of one trial in this process: what the store has is used, what it lacks is computed."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping

from ubt.artifacts.codec import Artifact
from ubt.artifacts.manifest import Meta
from ubt.common.errors import DamagedArtifact, WeakImplant
from ubt.engine.execution import Execution, stage_record
from ubt.engine.graph import Node, Pipeline
from ubt.engine.workspace import Workspace
from ubt.trials.config import VictimConfig
from ubt.trials.record import Rates, StageRecord

logger = logging.getLogger(__name__)

_ATTEMPTS = 3


class PipelineRun:
    """One trial's stages, one after the other. `stages` and `metas` show what is done so far."""

    def __init__(
        self,
        pipeline: Pipeline,
        victim: VictimConfig,
        workspace: Workspace,
        keep_epochs: Mapping[str, tuple[int, ...]],
    ) -> None:
        self.stages: list[StageRecord] = []
        self._pipeline = pipeline
        self._victim = victim
        self._workspace = workspace
        self._keep_epochs = keep_epochs
        self._metas: dict[str, Meta] = {}
        self._computed: dict[str, StageRecord] = {}  # by key: what this trial did, whatever happened later

    def steps(self) -> Iterator[StageRecord]:
        """Yield a record after every stage and epoch. A damaged artifact on the way is computed again.

        Raises:
            WeakImplant: if the attack did not take; no defense stage has run then.
            StageFault: if a stage cannot produce a usable artifact.
        """
        for attempt in range(_ATTEMPTS):
            try:
                yield from self._pass()
                return
            except DamagedArtifact as damage:
                if attempt == _ATTEMPTS - 1:
                    raise
                logger.warning("%s; computing it again", damage)

    def rates(self, stage: str, split: str) -> Rates | None:
        """Return what `implant` or `evaluate` measured on a split, once it has run."""
        meta = self._metas.get(stage)
        return Rates.model_validate(meta.facts[split]) if meta else None

    def _pass(self) -> Iterator[StageRecord]:
        self.stages = []
        self._metas = {}
        for node in self._pipeline:
            meta = self._workspace.meta(node.spec.name, node.key)
            if meta is not None:
                self.stages.append(self._computed.get(node.key) or stage_record(meta, reused=True))
            else:
                yield from self._compute(node)
                meta = self._workspace.meta(node.spec.name, node.key)
                assert meta is not None  # noqa: S101 — it was published just now
            self._metas[node.spec.name] = meta
            yield self.stages[-1]  # now that `rates` knows what the stage measured
            if node.spec.name == "implant":
                self._check_implant()

    def _compute(self, node: Node) -> Iterator[StageRecord]:
        """Yield the stage's record while it is incomplete; the complete one is left in `stages`."""
        inputs = {role: self._load(key) for role, key in node.inputs.items()}
        poison = self._load(self._metas["poison"].key) if "poison" in self._metas else None
        execution = Execution(node, self._workspace, inputs, poison, self._keep_epochs.get(node.spec.name, ()))
        self.stages.append(StageRecord(stage=node.spec.name, key=node.key, reused=False, seconds=0.0, complete=False))
        for record in execution.steps():
            self.stages[-1] = record
            if not record.complete:
                yield record
        self._computed[node.key] = self.stages[-1]

    def _load(self, key: str) -> Artifact:
        meta = next(meta for meta in self._metas.values() if meta.key == key)
        artifact = self._workspace.load(meta.stage, meta.key)
        if artifact is None:
            raise DamagedArtifact(f"{meta.stage} {meta.key} has disappeared from the store")
        return artifact

    def _check_implant(self) -> None:
        """Stop before the defense if there is no backdoor to remove, or no model left to defend."""
        rates, least = self.rates("implant", "val"), self._victim.implant.min_asr
        if rates is None or least == 0:
            return
        chance = 1 / len(self._workspace.data.classes)
        advice = "raise victim.implant.epochs or .learning_rate, or victim.attack.poison_rate"
        if rates.asr < least:
            raise WeakImplant(
                f"the backdoor did not take: ASR {rates.asr:.3f} on validation, victim.implant.min_asr is {least}; "
                f"{advice} (min_asr: 0 goes on all the same)"
            )
        if rates.ca_low <= chance:
            raise WeakImplant(
                f"the poisoned model's CA {rates.ca:.3f} is near chance ({chance:.3f}); "
                "train longer, or lower victim.implant.learning_rate (min_asr: 0 goes on all the same)"
            )
