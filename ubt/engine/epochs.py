"""What stages that train by epochs share: start or continue, take the steps, hand out what came of it.

The learning rate and the draws of an epoch depend on its number alone, never on how many follow. So an epoch is
the same however many follow, and continuing from an earlier one gives the same bits as running straight.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from ubt.data.base import PairSource
from ubt.engine.context import Epoch, Output, StageContext
from ubt.methods.feeding import Indices, fed
from ubt.methods.training import Descent, Optimizer, Recipe, train_on_pairs
from ubt.models.clip import Clip
from ubt.models.tokens import TokenSource

Losses = Callable[[int], Iterator[Tensor]]
"""Epoch → the loss of each of its steps (a scalar), computed when the step before has been taken."""


def model_to_train(context: StageContext, role: str, micro_batch_size: int | None) -> Clip:
    """Return the model that fills a role in evaluation mode, or what an earlier epoch of this chain made of it.

    It is trained by so many pairs at a time, or by whole batches.
    """
    clip = replace(context.clip(role), micro_batch_size=micro_batch_size)
    if context.earlier:
        clip.net.load_state_dict(dict(context.earlier.model))
    return clip


def train_epochs(
    context: StageContext,
    clip: Clip,
    optimizer: Optimizer,
    epochs: int,
    losses: Losses,
    snapshot: Callable[[], Output],
    train_batch_norm: bool = False,
) -> Iterator[Epoch]:
    """Yield the epochs up to number `epochs`, continuing from an earlier one if there is one; 0 leaves `clip` alone.

    Raises:
        StageFault: if a loss is not finite.
    """
    if context.earlier:
        optimizer.restore(context.earlier.optimizer)
    if epochs == 0:
        yield Epoch(0, snapshot, model=clip)
    for number in range(context.earlier.epoch + 1 if context.earlier else 1, epochs + 1):
        _set_batch_norm(clip.net, train_batch_norm)
        where = f"{context.name} epoch {number}"
        descent = Descent(clip, optimizer, where)
        for loss in losses(number):
            descent.step(loss)
        values = descent.losses()
        _set_batch_norm(clip.net, training=False)
        mean = float(np.mean(values)) if values else None
        yield Epoch(number, snapshot, mean, clip, optimizer.tensors, epochs)


def train_by_recipe(
    context: StageContext,
    clip: Clip,
    pairs: PairSource,
    tokens: TokenSource,
    recipe: Recipe,
    snapshot: Callable[[], Output],
) -> Iterator[Epoch]:
    """Yield the epochs of `train_on_pairs`, which know how many follow: only where they were ended do they continue.

    Raises:
        StageFault: if a loss is not finite.
    """
    optimizer = Optimizer(clip.net, recipe.learning_rate, recipe.weight_decay)
    done = 0
    if context.earlier:
        clip.net.load_state_dict(dict(context.earlier.model))
        optimizer.restore(context.earlier.optimizer)
        done = context.earlier.epoch
    for number, loss in train_on_pairs(clip, pairs, tokens, recipe, context.seed, context.name, optimizer, done):
        yield Epoch(number, snapshot, loss, clip, optimizer.tensors, recipe.epochs)


def embed_pairs(clip: Clip, pairs: PairSource, tokens: TokenSource, batch: Indices) -> tuple[Tensor, Tensor]:
    """Return unit embeddings `[B, D]` of the images and of the captions at `batch[B]`; `tokens` are all N."""
    return clip.encode_images(pairs.take(batch)), clip.encode_tokens(tokens[torch.from_numpy(batch)])


def embedded_batches(
    clip: Clip, pairs: PairSource, tokens: TokenSource, order: Sequence[Indices]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield what `embed_pairs` returns for one batch after the other; the next one's images are read meanwhile."""
    for batch, images in fed(pairs, order):
        yield clip.encode_images(images), clip.encode_tokens(tokens[torch.from_numpy(batch)])


def _set_batch_norm(net: nn.Module, training: bool) -> None:
    """Let batch norm use a batch's own statistics and learn from them, or the statistics it has."""
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.train(training)
