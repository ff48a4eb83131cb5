"""What a worker keeps between trials: the data, an unloaded model, evaluation images, recent artifacts."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import torch
from torch import Tensor

from ubt.artifacts.codec import MODEL, OPTIMIZER, TENSORS, Artifact, decode, overlay
from ubt.artifacts.manifest import Meta
from ubt.artifacts.store import ArtifactStore
from ubt.common.errors import DamagedArtifact
from ubt.data.base import DataSet
from ubt.engine.poisoning import Manifest, PoisonedPairs, poisoned_pairs
from ubt.methods.evaluation import Evaluator
from ubt.models.build import build_clip
from ubt.models.clip import Clip, State
from ubt.trials.config import VictimConfig

MEMORY_LIMIT_BYTES = 2 << 30


class Workspace:
    """Everything heavy that the trials of one victim's data and model share in one process."""

    def __init__(
        self,
        victim: VictimConfig,
        store: ArtifactStore,
        image_cache: Path,
        device: torch.device,
    ) -> None:
        self.victim = victim
        self.store = store
        self.device = device
        # Weights come from artifacts: only the architecture is needed here, so nothing is fetched or trained.
        architecture = victim.model.model_copy(update={"pretrained": None, "checkpoint": None, "random_weights": True})
        self.clip: Clip = build_clip(architecture, seed=0, device=self.device)
        self.data: DataSet = victim.data.load(self.clip.image_size_px, image_cache)
        self._artifacts: OrderedDict[str, Artifact] = OrderedDict()
        self._pairs: dict[str, PoisonedPairs] = {}
        self._tokens: dict[str, Tensor] = {}
        self._evaluators: dict[str, Evaluator] = {}

    def fits(self, victim: VictimConfig, device: torch.device) -> bool:
        """Tell whether a trial of `victim` can be run here: same data, same architecture, same device."""
        return (victim.data, victim.model, device) == (self.victim.data, self.victim.model, self.device)

    def meta(self, stage: str, key: str) -> Meta | None:
        """Return an artifact's description without its tensors; None if the store does not have it."""
        kept = self._artifacts.get(key)
        return kept.meta if kept else self.store.meta(stage, key)

    def load(self, stage: str, key: str) -> Artifact | None:
        """Return an artifact, from memory if it was used lately; None if the store does not have it.

        Raises:
            DamagedArtifact: if it was altered; it has then been set aside.
        """
        if key in self._artifacts:
            self._artifacts.move_to_end(key)
            return self._artifacts[key]
        meta = self.store.meta(stage, key)
        return None if meta is None else self._remember(self._read(meta))

    def remember(self, artifact: Artifact) -> Artifact:
        """Keep an artifact that was made here, so that the next stage need not read it back."""
        return self._remember(artifact)

    def optimizer(self, meta: Meta) -> dict[str, Tensor]:
        """Return what continuing from an epoch's artifact needs beside its model."""
        return decode(self.store, meta, OPTIMIZER)

    def poisoned_pairs(self, poison: Artifact) -> PoisonedPairs:
        """Return the poisoned training set of a `poison` artifact."""
        key = poison.meta.key
        if key not in self._pairs:
            self._pairs = {key: poisoned_pairs(self.data.train, Manifest.of(poison))}
        return self._pairs[key]

    def pair_tokens(self, poison: Artifact) -> Tensor:
        """Return the tokens `[N, L]` of that training set's captions."""
        key = poison.meta.key
        if key not in self._tokens:
            self._tokens = {key: self.clip.tokenize(list(self.poisoned_pairs(poison).captions))}
        return self._tokens[key]

    def evaluator(self, poison: Artifact) -> Evaluator:
        """Return the judge of models under that attack."""
        key = poison.meta.key
        if key not in self._evaluators:
            self._evaluators = {key: Evaluator(self.data, Manifest.of(poison).attack)}
        return self._evaluators[key]

    def _read(self, meta: Meta) -> Artifact:
        tensors, model = decode(self.store, meta, TENSORS), decode(self.store, meta, MODEL)
        if MODEL not in meta.payloads:
            return Artifact(meta, tensors)
        return Artifact(meta, tensors, overlay(model, self._base_weights(meta)))

    def _base_weights(self, meta: Meta) -> State | None:
        if meta.base is None:
            return None
        stage, _, key = meta.base.partition("/")
        base = self.load(stage, key)
        if base is None or base.meta.payloads[MODEL].sha256 != meta.base_sha256:
            self.store.set_aside(meta)
            raise DamagedArtifact(
                f"{meta.stage} {meta.key}: the model it differs from, {meta.base}, is gone or another"
            )
        return base.weights

    def _remember(self, artifact: Artifact) -> Artifact:
        self._artifacts[artifact.meta.key] = artifact
        while len(self._artifacts) > 1 and sum(a.size_bytes for a in self._artifacts.values()) > MEMORY_LIMIT_BYTES:
            self._artifacts.popitem(last=False)
        return artifact
