"""What a worker keeps between trials: the data, an unloaded model, evaluation images, recent artifacts."""

from __future__ import annotations

import copy
import os
from collections import OrderedDict
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from ubt.artifacts.codec import OPTIMIZER, Artifact, decode, read_artifact
from ubt.artifacts.manifest import ArtifactManifest
from ubt.artifacts.payloads import Content
from ubt.artifacts.store import ArtifactStore
from ubt.artifacts.uploads import Uploads
from ubt.common.errors import DamagedArtifact, StageFault
from ubt.common.memory import memory_bytes
from ubt.data.base import DataSet, DataSource
from ubt.data.content.tokens import FEW, kept_tokens
from ubt.engine.poisoning import Feed, PoisonManifest, poisoned_pairs
from ubt.engine.work import cpu_name
from ubt.methods.evaluation import Evaluator
from ubt.models.build import build_clip
from ubt.models.clip import Clip
from ubt.models.settings import ModelSettings
from ubt.models.tokens import TokenRows, small_tokens
from ubt.trials.rates import Rates

_LEAST_KEPT_BYTES = 2 << 30
_SHARE_KEPT = 0.25


def memory_limit_bytes(threads: int) -> int:
    """Return how much memory recent artifacts may take in a worker with so many of the machine's cores.

    A quarter of its share of the machine: a trial touches four models, and reading one again takes a second or more.
    """
    cores = max(1, os.cpu_count() or 1)
    return max(_LEAST_KEPT_BYTES, int(_SHARE_KEPT * memory_bytes() * min(1.0, threads / cores)))


def plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a stage's tensors without anything else that it attached: the engine computes with them beside the poison.

    Raises:
        StageFault: if one is of a class of its own, whose methods would be called with what it is combined with.
    """
    found = dict(tensors)
    for name, tensor in found.items():
        if type(tensor) not in {Tensor, nn.Parameter}:
            raise StageFault(f"`{name}` is a {type(tensor).__name__}, not a tensor of torch's own class")
    return {str(name): Tensor.detach(tensor) for name, tensor in found.items()}


class Workspace:
    """Everything heavy that the trials of one data set and one architecture share in one process."""

    def __init__(
        self,
        data: DataSource,
        model: ModelSettings,
        device: torch.device,
        store: ArtifactStore,
        image_cache: Path,
        node: str = "",
    ) -> None:
        self.store = store
        self.node = node
        """What the node that this process runs on is called in records."""
        self.device = device
        self._fits = (data, model, device)
        self._image_cache = image_cache
        # Weights come from artifacts: only the architecture is needed here, so nothing is fetched or trained.
        self.clip: Clip = build_clip(model, seed=0, device=self.device, weights=False)
        self.data: DataSet = data.load(self.clip.image_size_px, image_cache)
        self.clean_pairs: Feed | None = Feed(self.data.pretrain) if self.data.pretrain else None
        """Clean pairs from which a defender's are drawn."""
        self._artifacts: OrderedDict[str, Artifact] = OrderedDict()
        self.uploads = None if store.is_folder else Uploads(store)
        """What is published while the next stage computes; None where that is written at once."""
        self._memory_limit_bytes = memory_limit_bytes(torch.get_num_threads())
        self._pairs: dict[str, tuple[Feed, Feed]] = {}
        self._tokens: dict[str, TokenRows] = {}
        self._evaluators: dict[str, Evaluator] = {}
        self._judged: dict[str, Rates] = {}

    @property
    def hardware(self) -> str:
        """Return what computes here: the name of the GPU, or of the CPU."""
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else cpu_name()

    def fits(self, data: DataSource, model: ModelSettings, device: torch.device) -> bool:
        """Return whether a trial can be run here: same data, same architecture, same device."""
        return (data, model, device) == self._fits

    def manifest(self, stage: str, key: str) -> ArtifactManifest | None:
        """Return an artifact's description without its tensors; None if the store does not have it."""
        kept = self._artifacts.get(key)
        if kept is None and self.uploads and (pending := self.uploads.pending().get(key)):
            return pending
        return kept.manifest if kept else self.store.manifest(stage, key)

    def load(self, stage: str, key: str) -> Artifact | None:
        """Return an artifact, from memory if it was used lately; None if the store does not have it.

        Raises:
            DamagedArtifact: if it was altered; it has then been set aside.
        """
        if key in self._artifacts:
            self._artifacts.move_to_end(key)
            return self._artifacts[key]
        if key in self.pending:
            self.settle()  # memory was too small for it to be kept until then
        manifest = self.store.manifest(stage, key)
        return None if manifest is None else self._remember(read_artifact(self.store, manifest, self.load))

    def publish(
        self, described: ArtifactManifest, payloads: Mapping[str, Content], at_once: bool = True
    ) -> ArtifactManifest:
        """Publish an artifact; not `at_once`, to a store at an address while the next stage computes.

        Raises:
            UnusableStore: if it, or one before it, cannot be published.
        """
        if self.uploads and not at_once:
            return self.uploads.publish(described, payloads)
        self.settle()  # what it builds on comes first
        return self.store.publish(described, payloads)

    @property
    def pending(self) -> Container[str]:
        """Return the keys of what is not published yet."""
        return self.uploads.pending() if self.uploads else ()

    def settle(self) -> None:
        """Wait until all is published, and forget what cannot be: nothing may count as there that is not.

        Raises:
            UnusableStore: if something cannot be.
        """
        if self.uploads is None:
            return
        try:
            self.uploads.settle()
        finally:
            for key in self.uploads.lost():
                self._artifacts.pop(key, None)

    def when_published(self, then: Callable[[bool], None]) -> None:
        """Call something once what was made until now is published (True), or will not be."""
        if self.uploads:
            self.uploads.then(then)
        else:
            then(True)

    def damaged(self, manifest: ArtifactManifest, how: str) -> DamagedArtifact:
        """Set an artifact aside, forget it, and return the error that has it computed again."""
        self._artifacts.pop(manifest.key, None)
        self.store.set_aside(manifest)
        return DamagedArtifact(f"{manifest.stage} {manifest.key} {how}, and was set aside")

    def remember(self, artifact: Artifact) -> Artifact:
        """Keep an artifact that was made here, so that the next stage need not read it back."""
        return self._remember(artifact)

    def optimizer(self, manifest: ArtifactManifest) -> dict[str, Tensor]:
        """Return what continuing from an epoch's artifact needs beside its model."""
        return decode(self.store, manifest, OPTIMIZER)

    @cached_property
    def lent_clip(self) -> Clip:
        """Return the unloaded model that stages of defenses make theirs from.

        Another one than the engine's own: what a stage hooks into its model sees nothing of evaluation and diagnosis.
        """
        return replace(self.clip, net=copy.deepcopy(self.clip.net))

    def own_copy(self, model: Clip) -> Clip:
        """Return the engine's own model with the weights of a stage's, until the next call."""
        self.clip.net.load_state_dict(plain(model.net.state_dict()))
        return self.clip

    def pairs(self, poison: Artifact, lent: bool = False) -> Feed:
        """Return the poisoned training set of a `poison` artifact, as anyone finds it.

        What is `lent` to stages of defenses is another feed than the engine's own: they cannot listen at that one.
        """
        key = poison.manifest.key
        if key not in self._pairs:
            pairs = poisoned_pairs(self.data.train, PoisonManifest.of(poison))
            self._pairs = {key: (Feed(pairs), Feed(pairs))}
        return self._pairs[key][lent]

    def pair_tokens(self, poison: Artifact) -> TokenRows:
        """Return the tokens of that training set's N captions."""
        key = poison.manifest.key
        if key not in self._tokens:
            self._tokens = {key: self._tokens_of(self.pairs(poison).captions)}
        return self._tokens[key]

    def _tokens_of(self, captions: Sequence[str]) -> TokenRows:
        """Return the tokens of the training captions with some of them poisoned."""
        clean, tokenize = self.data.train.captions, self.clip.tokenize
        if len(clean) <= FEW or not self.clip.tokenizer:
            return small_tokens(list(captions), tokenize)
        kept = kept_tokens(clean, lambda some: tokenize(some).numpy(), self.clip.tokenizer, self._image_cache)
        changed = [at for at, (one, other) in enumerate(zip(captions, clean, strict=True)) if one != other]
        tokens = TokenRows(kept)
        return tokens.with_changed(changed, tokenize([captions[at] for at in changed])) if changed else tokens

    def evaluator(self, poison: Artifact) -> Evaluator:
        """Return the evaluator of models under that attack."""
        key = poison.manifest.key
        if key not in self._evaluators:
            self._evaluators = {key: Evaluator(self.data, PoisonManifest.of(poison).attack)}
        return self._evaluators[key]

    def note_judged(self, key: str, rates: Rates) -> None:
        """Keep what the model of an artifact is worth on validation, judged in full when it had just been trained."""
        self._judged = {key: rates}

    def judged(self, key: str) -> Rates | None:
        """Return that, class by class, if the last model that was trained here is this one."""
        return self._judged.get(key)

    def _remember(self, artifact: Artifact) -> Artifact:
        self._artifacts[artifact.manifest.key] = artifact
        while (
            len(self._artifacts) > 1 and sum(a.size_bytes for a in self._artifacts.values()) > self._memory_limit_bytes
        ):
            self._artifacts.popitem(last=False)
        return artifact
