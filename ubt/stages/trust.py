"""What detectors share: trust by similarity, and how well it tells poison. No stage by itself."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ubt.metrics import auroc
from ubt.poisoning import Manifest
from ubt.similarity import pair_similarities
from ubt.stages.context import Output, StageContext


def similarities_under(context: StageContext, role: str) -> Tensor:
    """Return the similarity of each pair of D, `[N]` float32 in [−1, 1], under the model that fills a role."""
    pairs = context.pairs
    return pair_similarities(context.clip(role), pairs, context.pair_tokens, np.arange(len(pairs)))


def measure(context: StageContext, output: Output, manifest: Manifest) -> dict[str, float]:
    """Return how well low `trust[N]` alone tells poison from the rest (AUROC over all of D)."""
    trust = output.tensors["trust"]
    return {"auroc": auroc(-trust.numpy(), manifest.marks(torch.arange(len(trust))))}
