"""Overfit the poisoned model to the suspicious pairs: the backdoor's shortcut is learnt first (the paper's second)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ubt.data.base import Pairs
from ubt.defenses.ubt import OverfitSettings
from ubt.metrics import auroc
from ubt.models.clip import Clip
from ubt.poisoning import Manifest
from ubt.similarity import pair_similarities
from ubt.stages.context import Epoch, Output, StageContext
from ubt.training import Indices, Optimizer, batches, clip_loss, descend


def run(context: StageContext) -> Iterator[Epoch]:
    """Yield M_o epoch by epoch, with `similarities[S]` float32 of the suspects under it.

    The learning rate is constant and the order of an epoch depends on its number alone, so an epoch is the
    same however many follow, and continuing from an earlier one gives the same bits.

    Raises:
        StageFault: if the loss is not finite.
    """
    settings = context.settings(OverfitSettings)
    suspects = context.artifact("suspects").tensors["indices"].numpy()
    chosen = suspects if settings.overfit_data == "suspicious" else np.arange(len(context.pairs))
    clip, optimizer, done = _start(context, settings)

    def snapshot() -> Output:
        similarities = pair_similarities(clip, context.pairs, context.pair_tokens, suspects)
        return Output(tensors={"similarities": similarities}, model=clip.state(), base="poisoned")

    if settings.overfit_epochs == 0:
        yield Epoch(0, snapshot)
    for number in range(done + 1, settings.overfit_epochs + 1):
        losses = [
            descend(
                clip,
                optimizer,
                _loss(clip, context.pairs, context.pair_tokens, chosen[batch], settings),
                f"overfit epoch {number}",
            )
            for batch in batches(len(chosen), settings.overfit_batch_size, context.seed, "overfit", "order", number)
        ]
        yield Epoch(number, snapshot, float(np.mean(losses)), optimizer=optimizer.tensors)


def measure(context: StageContext, output: Output, manifest: Manifest) -> dict[str, float]:
    """Return how well similarity under M_o tells poison from the other suspects (AUROC; figure 3's claim)."""
    marks = manifest.marks(context.artifact("suspects").tensors["indices"])
    similarities = output.tensors["similarities"].numpy()
    found = {"auroc": auroc(similarities, marks)}
    for name, group in (("poison", marks), ("clean", ~marks)):
        if group.any():
            found[f"similarity_{name}"] = float(similarities[group].mean())
    return found


def _start(context: StageContext, settings: OverfitSettings) -> tuple[Clip, Optimizer, int]:
    """Return the model, its optimizer and the epochs already behind them."""
    clip = context.clip("poisoned")
    if context.earlier:
        clip.net.load_state_dict(dict(context.earlier.model))
    # Batch norm keeps its statistics (evaluation mode): a few hundred odd pairs would spoil them.
    optimizer = Optimizer(clip.net.eval(), settings.overfit_learning_rate, train_token_embedding=False)
    if context.earlier:
        optimizer.restore(context.earlier.optimizer)
    return clip, optimizer, context.earlier.epoch if context.earlier else 0


def _loss(clip: Clip, pairs: Pairs, tokens: Tensor, batch: Indices, settings: OverfitSettings) -> Tensor:
    images, texts = clip.encode_images(pairs.take(batch)), clip.encode_tokens(tokens[torch.from_numpy(batch)])
    if settings.overfit_loss == "contrastive":
        return clip_loss(images, texts, clip.logit_scale)
    return -(images * texts).sum(dim=1).mean()
