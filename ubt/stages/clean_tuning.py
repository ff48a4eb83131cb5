"""Baselines that train the poisoned model on clean pairs: fine-tuning, CleanCLIP and PAR.

- `finetune`: CLIP's loss.
- `cleanclip`: beside it each image and each caption is tied to its own augmentation. Source: Bansal et al., ICCV 2023,
  arXiv 2303.03323, equations 2 and 3. Their captions are also augmented with synonyms, which takes WordNet and is left
  out here.
- `par`: embeddings are pushed away from the poisoned model's while CLIP's loss recovers. Source: Singh, Croce and Hein,
  2024, arXiv 2412.00727, and their code: L = L_CLIP − w · Σ d · [d ≤ τ], summed over images and captions; d is the mean
  squared distance between a batch's unit embeddings under the model and under the poisoned one. Where d is above τ
  nothing pushes any more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ubt.common.hashing import derive
from ubt.data.base import Images
from ubt.defenses.baselines import CleanclipSettings, FinetuneSettings, ParSettings
from ubt.engine.context import Epoch, Output, StageContext
from ubt.engine.epochs import model_to_train, train_epochs
from ubt.engine.poisoning import PoisonManifest
from ubt.methods.augmentation import augment_captions, augment_images
from ubt.methods.losses import clip_loss
from ubt.methods.training import Optimizer, batches
from ubt.models.clip import Clip


@dataclass(frozen=True)
class FineTuning:
    """How much is trained, and how fast."""

    clean_pairs: int
    epochs: int
    learning_rate: float
    batch_size: int
    micro_batch_size: int | None
    weight_decay: float
    train_batch_norm: bool
    learning_rate_decay: float
    """Factor on the learning rate after each epoch, counted from the first."""

    @classmethod
    def of(cls, settings: FinetuneSettings | CleanclipSettings | ParSettings, stage: str) -> FineTuning:
        """Return it from a stage's settings, whose names begin with the stage's."""
        given: dict[str, Any] = {
            name.removeprefix(f"{stage}_"): value for name, value in settings if name.startswith(f"{stage}_")
        }
        return cls(
            clean_pairs=settings.clean_pairs,
            epochs=given["epochs"],
            learning_rate=given["learning_rate"],
            batch_size=given["batch_size"],
            micro_batch_size=given["micro_batch_size"],
            weight_decay=given["weight_decay"],
            train_batch_norm=given["batch_norm"] == "trained",
            learning_rate_decay=given["learning_rate_decay"],
        )


@dataclass(frozen=True)
class CleanBatch:
    """The clean pairs of one step."""

    images: Images
    """`[B, H, W, 3]` uint8."""
    captions: list[str]
    tokens: Tensor
    """`[B, L]` int64."""
    epoch: int
    step: int
    """Within the epoch, from 0."""


def fine_tune(context: StageContext, tuning: FineTuning, loss: Callable[[Clip, CleanBatch], Tensor]) -> Iterator[Epoch]:
    """Yield the model epoch by epoch, trained to lower `loss` (a scalar of model and batch) on clean pairs.

    Raises:
        StageFault: if the loss is not finite, or the data has no clean pairs.
    """
    pairs, tokens = context.clean_pairs(tuning.clean_pairs)
    clip = model_to_train(context, "poisoned", tuning.micro_batch_size)
    optimizer = Optimizer(clip.net, tuning.learning_rate, tuning.weight_decay, train_token_embedding=False)

    def losses(epoch: int) -> Iterator[Tensor]:
        optimizer.set_learning_rate(tuning.learning_rate * tuning.learning_rate_decay ** (epoch - 1))
        order = batches(len(pairs), tuning.batch_size, context.seed, context.name, "order", epoch)
        for step, chosen in enumerate(order):
            captions = [pairs.captions[index] for index in chosen]
            batch = CleanBatch(pairs.take(chosen), captions, tokens[torch.from_numpy(chosen)], epoch, step)
            yield loss(clip, batch)

    def snapshot() -> Output:
        return Output(model=clip.state(), base="poisoned", facts={"clean_pairs": len(pairs)})

    yield from train_epochs(context, clip, optimizer, tuning.epochs, losses, snapshot, tuning.train_batch_norm)


def diagnose(context: StageContext, output: Output, manifest: PoisonManifest) -> dict[str, float]:
    """Return how many clean pairs a stage trained on: what a defense was given beside the poisoned data."""
    return {"clean_pairs": float(cast(int, output.facts["clean_pairs"]))}


def finetune(context: StageContext) -> Iterator[Epoch]:
    """Yield the fine-tuned model epoch by epoch; an epoch is one pass over the clean pairs.

    Raises:
        StageFault: if the loss is not finite, or the data has no clean pairs.
    """
    settings = context.settings(FinetuneSettings)
    tuning = FineTuning.of(settings, "finetune")
    yield from fine_tune(context, tuning, _finetune_loss)


def _finetune_loss(clip: Clip, batch: CleanBatch) -> Tensor:
    return clip_loss(clip.encode_images(batch.images), clip.encode_tokens(batch.tokens), clip.logit_scale)


def cleanclip(context: StageContext) -> Iterator[Epoch]:
    """Yield the cleaned model epoch by epoch; an epoch is one pass over the clean pairs.

    Raises:
        StageFault: if the loss is not finite, or the data has no clean pairs.
    """
    settings = context.settings(CleanclipSettings)
    tuning = FineTuning.of(settings, "cleanclip")

    def loss(clip: Clip, batch: CleanBatch) -> Tensor:
        images, texts = augmented(context, settings, clip, batch)
        return cleanclip_loss(images, texts, clip.logit_scale, settings.inmodal_weight)

    yield from fine_tune(context, tuning, loss)


def augmented(
    context: StageContext, settings: CleanclipSettings, clip: Clip, batch: CleanBatch
) -> tuple[Tensor, Tensor]:
    """Return unit embeddings of images and captions, `[2B, D]` each: the batch, then its augmentation.

    Both halves go through the model together, as in the authors' code, so that batch norm sees both.
    """
    seed = derive(context.seed, "cleanclip", "images", batch.epoch, batch.step)
    images = np.concatenate([batch.images, augment_images(batch.images, settings.image_policy, seed)])
    rng = context.rng("captions", batch.epoch, batch.step)
    captions = augment_captions(batch.captions, settings.caption_change_rate, rng)
    return clip.encode_images(images), clip.encode_tokens(torch.cat([batch.tokens, clip.tokenize(captions)]))


def cleanclip_loss(images: Tensor, texts: Tensor, scale: Tensor, inmodal_weight: float) -> Tensor:
    """Return CLIP's loss + λ · (L_I + L_T) / 2, a scalar, of `images[2B, D]` and `texts[2B, D]`: batch, augmentation.

    L_I is the cross entropy of telling each image's augmentation from those of the others; L_T that of captions.
    """
    (image, image_changed), (text, text_changed) = images.chunk(2), texts.chunk(2)
    inmodal = (_cross_entropy(image, image_changed, scale) + _cross_entropy(text, text_changed, scale)) / 2
    return clip_loss(image, text, scale) + inmodal_weight * inmodal


def _cross_entropy(embeddings: Tensor, changed: Tensor, scale: Tensor) -> Tensor:
    own = torch.arange(len(embeddings), device=embeddings.device)
    return functional.cross_entropy(scale * embeddings @ changed.T, own)


def par(context: StageContext) -> Iterator[Epoch]:
    """Yield the recovering model epoch by epoch; an epoch is one pass over the clean pairs.

    Raises:
        StageFault: if the loss is not finite, or the data has no clean pairs.
    """
    settings = context.settings(ParSettings)
    tuning = FineTuning.of(settings, "par")
    poisoned = context.clip("poisoned")

    def loss(clip: Clip, batch: CleanBatch) -> Tensor:
        images = _images(context, settings, batch)
        with torch.no_grad():
            before = poisoned.encode_images(images), poisoned.encode_tokens(batch.tokens)
        now = clip.encode_images(images), clip.encode_tokens(batch.tokens)
        away = sum(perturbation(*pair, settings.par_threshold) for pair in zip(now, before, strict=True))
        return clip_loss(*now, clip.logit_scale) - settings.par_weight * away

    yield from fine_tune(context, tuning, loss)


def perturbation(now: Tensor, before: Tensor, threshold: float) -> Tensor:
    """Return the mean squared distance of `now[B, D]` from `before[B, D]`, a scalar; 0 where it is above τ."""
    distance = (now - before).square().sum(dim=1).mean()
    return torch.where(distance > threshold, torch.zeros_like(distance), distance)


def _images(context: StageContext, settings: ParSettings, batch: CleanBatch) -> Images:
    if settings.par_image_policy == "none":
        return batch.images
    seed = derive(context.seed, "par", "images", batch.epoch, batch.step)
    return augment_images(batch.images, settings.par_image_policy, seed)
