"""Unlearn the selected images' ties to the telling tokens of their captions (the paper's last stage).

The poisoned model's similarity of (image, kept tokens) is pushed down while a loss on trusted pairs holds the rest
in place (`retention.py`). The hinge is ours: plain ascent has no lower bound and takes the accuracy
with it (docs/method.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import numpy as np
import torch
from pydantic import JsonValue
from torch import Tensor
from torch.nn import functional

from ubt.defenses.ubt import UnlearnSettings
from ubt.engine.context import Epoch, Output, StageContext
from ubt.engine.epochs import model_to_train, train_epochs
from ubt.engine.poisoning import PoisonManifest
from ubt.methods.feeding import Indices
from ubt.methods.training import Optimizer, batches
from ubt.models.clip import Clip, embed_tokens
from ubt.stages.retention import Retention


def run(context: StageContext) -> Iterator[Epoch]:
    """Yield the unlearnt model epoch by epoch; an epoch is one pass over the selected pairs.

    Continuing from an earlier epoch gives the same bits as running straight.

    Raises:
        StageFault: if the loss is not finite, or no pair is left to hold in place.
    """
    settings = context.settings(UnlearnSettings)
    forgotten, retention = forgotten_pairs(context, settings), Retention(context, settings)
    clip, optimizer = _start(context, settings)

    def losses(epoch: int) -> Iterator[Tensor]:
        return _losses(context, clip, forgotten, retention, settings, epoch)

    def snapshot() -> Output:
        facts: dict[str, JsonValue] = {"pairs": len(forgotten[0]), "held_pairs": retention.pairs}
        return Output(model=clip.state(), base="poisoned", facts=facts)

    yield from train_epochs(context, clip, optimizer, settings.unlearn_epochs, losses, snapshot)


def diagnose(context: StageContext, output: Output, manifest: PoisonManifest) -> dict[str, float]:
    """Return what is unlearnt (pairs, tokens of a caption), how many pairs are held, and that none had to be clean."""
    kept = kept_tokens(context, context.settings(UnlearnSettings))
    return {
        "pairs": float(kept.any(dim=1).sum()),
        "held_pairs": float(cast(int, output.facts["held_pairs"])),
        "clean_pairs": 0.0,
        "tokens_per_caption": float(kept.sum(dim=1).float().mean()),
    }


def kept_tokens(context: StageContext, settings: UnlearnSettings) -> Tensor:
    """Return which tokens of the selected captions are unlearnt, `[K, L]` bool."""
    relevance = context.artifact("relevance").tensors
    if settings.unlearn_scope == "caption":
        return relevance["words"]
    return relevance["words"] & (relevance["relevance"] > settings.token_threshold)


def forgotten_pairs(context: StageContext, settings: UnlearnSettings) -> tuple[Indices, Tensor]:
    """Return the pairs to unlearn, `[F]` int64 into D, and their shortened captions, `[F, L]` int64.

    Captions of which no token is above the threshold say nothing of the backdoor and are left out.
    """
    kept = kept_tokens(context, settings)
    indices = context.artifact("selection").tensors["indices"]
    telling = kept.any(dim=1)
    words = context.artifact("relevance").tensors["words"]
    tokens = shorten(context.pair_tokens[indices], words & ~kept, context.padding)
    return indices[telling].numpy(), tokens[telling]


def shorten(tokens: Tensor, dropped: Tensor, padding: int = 0) -> Tensor:
    """Return captions without the dropped tokens, what is left moved together and filled up, `[K, L]` int64."""
    short = torch.full_like(tokens, padding)
    for row, (caption, gone) in enumerate(zip(tokens, dropped, strict=True)):
        left = caption[~gone]
        short[row, : len(left)] = left
    return short


def forget_loss(images: Tensor, texts: Tensor, settings: UnlearnSettings) -> Tensor:
    """Return what unlearning lowers, a scalar, of unit embeddings `images[B, D]` and `texts[B, D]`.

    `hinge`: mean(relu(cos − margin)); `ascent`: mean(cos), which is gradient ascent on the pairs' distance.
    """
    similarities = (images * texts).sum(dim=1)
    if settings.unlearn_loss == "ascent":
        return similarities.mean()
    return functional.relu(similarities - settings.unlearn_margin).mean()


def _start(context: StageContext, settings: UnlearnSettings) -> tuple[Clip, Optimizer]:
    # Batch norm keeps its statistics (evaluation mode): triggered images alone would shift them.
    clip = model_to_train(context, "poisoned", settings.unlearn_micro_batch_size)
    if settings.unlearn_towers == "image":
        for name, weight in clip.net.named_parameters():
            weight.requires_grad_(name.startswith("visual."))
    return clip, Optimizer(clip.net, settings.unlearn_learning_rate, train_token_embedding=False)


def _losses(
    context: StageContext,
    clip: Clip,
    forgotten: tuple[Indices, Tensor],
    retention: Retention,
    settings: UnlearnSettings,
    epoch: int,
) -> Iterator[Tensor]:
    """Yield the loss of each step of an epoch, computed when the step before has been taken."""
    indices, tokens = forgotten
    rng = context.rng("retain", epoch)
    still = embed_tokens(clip, tokens) if settings.unlearn_towers == "image" and len(tokens) else None
    for batch in batches(len(indices), settings.unlearn_batch_size, context.seed, "unlearn", "order", epoch):
        held, chosen = retention.draw(rng), torch.from_numpy(batch)
        # One pass for both kinds of images: batch norm is frozen, so they do not see each other.
        pixels = np.concatenate([context.pairs.take(indices[batch]), retention.pixels(held)])
        forgotten_images, held_images = torch.split(clip.encode_images(pixels), [len(batch), len(held)])
        texts = clip.encode_tokens(tokens[chosen]) if still is None else still[chosen].to(clip.device)
        yield forget_loss(forgotten_images, texts, settings) + retention.loss(clip, held_images, held)
