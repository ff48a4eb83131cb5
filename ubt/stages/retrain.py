"""Train the clean model on D without its poison, by the implant's own recipe: what no defense can hope to beat."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from ubt.errors import StageFault
from ubt.poisoning import Manifest
from ubt.stages.context import Epoch, Output, StageContext
from ubt.stages.implant import recipe
from ubt.subset import subset
from ubt.training import train_on_pairs


def run(context: StageContext) -> Iterator[Epoch]:
    """Yield the epochs of fine-tuning on what is not poisoned. It is told the poison, so it is no defense.

    Raises:
        StageFault: if the loss is not finite, or nobody knows what is poisoned.
    """
    if not context.manifest.known:
        raise StageFault("nobody knows which pairs are poisoned, so they cannot be left out")
    kept = np.setdiff1d(np.arange(len(context.pairs)), context.manifest.indices)
    pairs, tokens = subset(context.pairs, kept), context.pair_tokens[torch.from_numpy(kept)]
    clip = context.clip("clean")
    for number, loss in train_on_pairs(clip, pairs, tokens, recipe(context), context.seed, "retrain"):
        yield Epoch(number, lambda: Output(model=clip.state(), facts={"pairs": len(kept)}), loss)


def measure(context: StageContext, output: Output, manifest: Manifest) -> dict[str, float]:
    """Return how many pairs were left to train on; no others were needed, but for being told which."""
    return {"pairs": float(len(context.pairs) - len(manifest.indices)), "clean_pairs": 0.0}
