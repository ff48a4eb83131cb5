"""How far pairs of D are trusted: what detectors put out, and the stages after them read. No stage by itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ubt.common.seeding import numpy_generator
from ubt.common.statistics import auroc
from ubt.defenses.detectors import ScreenSettings
from ubt.engine.context import Output, StageContext, StageInput
from ubt.engine.poisoning import PoisonManifest
from ubt.methods.similarity import pair_similarities
from ubt.methods.training import Indices


@dataclass(frozen=True)
class Trust:
    """The pairs that a detector has looked at, and how far it trusts each."""

    pairs: Tensor
    """`[V]` int64 into D, sorted."""
    values: Tensor
    """`[V]` float32; low is suspicious."""

    @classmethod
    def of(cls, artifact: StageInput) -> Trust:
        """Return what a detector has put out."""
        return cls(artifact.tensors["pairs"], artifact.tensors["trust"])

    def output(self) -> Output:
        """Return it as a stage puts it out: `pairs[V]` and `trust[V]`."""
        return Output(tensors={"pairs": self.pairs, "trust": self.values})

    def ranked(self, descending: bool = False) -> Tensor:
        """Return the positions among `pairs`, `[V]` int64, least trusted first, or most; ties as they come."""
        return torch.argsort(self.values, descending=descending, stable=True)

    def in_pairs(self, indices: Tensor) -> Tensor:
        """Return the trust, `[K]`, in pairs at `indices[K]` int64 into D that were looked at."""
        return self.values[torch.searchsorted(self.pairs, indices)]


def screened(context: StageContext) -> Indices:
    """Return the pairs that a detector looks at, `[V]` int64 into D, sorted: all of them, or a random part."""
    count, ratio = len(context.pairs), context.settings(ScreenSettings).screened_ratio
    # Not drawn for each stage anew: detectors are compared on equal pairs.
    chosen = numpy_generator(context.seed, "screened").permutation(count)[: max(2, round(ratio * count))]
    return np.sort(chosen)


def similarities_under(context: StageContext, role: str, pairs: Indices) -> Tensor:
    """Return the similarity of each of `pairs[V]`, `[V]` float32 in [−1, 1], under the model that fills a role."""
    return pair_similarities(context.clip(role), context.pairs, context.pair_tokens, pairs)


def diagnose(context: StageContext, output: Output, manifest: PoisonManifest) -> dict[str, float]:
    """Return how many pairs were looked at, their share of the poison (`recall`), and how well low trust tells it."""
    pairs, trust = output.tensors["pairs"], output.tensors["trust"]
    found = {name: value for name, value in manifest.found_in(pairs).items() if name != "precision"}
    return found | {"auroc": auroc(-trust.numpy(), manifest.marks(pairs))}
