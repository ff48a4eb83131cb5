"""Measure how well the defended model finds captions by images and images by captions.

The classes of an evaluation set are few; captions say more. No data set here has captioned pairs that no model
was trained on, so those searched are the pairs of D that are not poisoned. `implant` has trained every victim on
them: the metric shows what a defense forgets, not how well a model generalises. Of a victim that came
poisoned it is unknown which pairs are clean, and all are taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor

from ubt.engine.context import Output, PrivilegedContext, StageContext
from ubt.engine.poisoning import PoisonManifest
from ubt.methods.training import Indices
from ubt.models.clip import embed_images, embed_tokens
from ubt.trials.metrics import Retrieval

CUTOFFS = (1, 5)


def run(context: PrivilegedContext) -> Output:
    """Return recall@1 and recall@5 in both directions, and the number of pairs searched, as facts."""
    clip, chosen = context.clip("model"), searched_pairs(context)
    captions = [context.pairs.captions[index] for index in chosen]
    images = embed_images(clip, context.pairs.take(chosen))
    similarities = images @ embed_tokens(clip, context.pair_tokens[torch.from_numpy(chosen)]).T
    right = same_captions(captions)
    directions = {"image_to_text": (similarities, right), "text_to_image": (similarities.T, right.T)}
    recalls = {f"{name}_recall_{k}": recall_at(*asked, k) for name, asked in directions.items() for k in CUTOFFS}
    return Output(facts={**recalls, "pairs": float(len(chosen))})


def diagnose(context: StageContext, output: Output, manifest: PoisonManifest) -> dict[str, float]:
    """Return what was measured."""
    return cast("dict[str, float]", dict(output.facts))


def searched_pairs(context: PrivilegedContext) -> Indices:
    """Return clean pairs of D drawn without replacement, `[S]` int64."""
    clean = np.setdiff1d(np.arange(len(context.pairs)), context.manifest.indices)
    return context.rng("pairs").permutation(clean)[: context.settings(Retrieval).pairs]


def same_captions(captions: Sequence[str]) -> Tensor:
    """Return for each two of N captions whether they are equal, `[N, N]` bool: a repeated caption is right too."""
    _, numbers = np.unique(np.asarray(captions), return_inverse=True)
    return torch.from_numpy(numbers[:, None] == numbers[None, :])


def recall_at(similarities: Tensor, right: Tensor, k: int) -> float:
    """Return the fraction of queries with a right answer among the `k` most similar.

    `similarities[Q, G]` float, `right[Q, G]` bool, at least one right answer a query. A wrong answer that is
    as similar as the best right one goes before it, so that a model which finds everything alike scores 0.
    """
    best = similarities.masked_fill(~right, -torch.inf).amax(dim=1, keepdim=True)
    before = ((similarities >= best) & ~right).sum(dim=1)
    return float((before < k).double().mean())
