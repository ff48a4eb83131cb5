"""What holds the rest of the model in place while a backdoor is unlearnt. Ours: see docs/method.md.

Pairs that the detector trusts most are either learnt on (CLIP's loss) or kept where the poisoned model has them
(distillation). No stage by itself: `unlearn` uses it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ubt.common.errors import StageFault
from ubt.data.base import Images
from ubt.defenses.ubt import UnlearnSettings
from ubt.engine.context import StageContext
from ubt.methods.feeding import Indices
from ubt.methods.losses import clip_loss
from ubt.models.clip import Clip, embed_pair_images, embed_tokens
from ubt.stages.detectors import Trust


@dataclass(frozen=True)
class _Before:
    """Where the poisoned model has the retained pairs: unit embeddings `[R, D]`, computed once, not at every step."""

    images: Tensor
    texts: Tensor | None
    """None if the text tower is not trained, and so cannot move."""


class Retention:
    """The retention loss of one unlearning stage."""

    def __init__(self, context: StageContext, settings: UnlearnSettings) -> None:
        self._context = context
        self._settings = settings
        self._retained = retained_pairs(context, settings) if settings.retain_weight else np.empty(0, dtype=np.int64)
        self._before = self._embed() if settings.retain_loss == "distill" and len(self._retained) else None

    @property
    def pairs(self) -> int:
        """Return how many pairs are held in place."""
        return len(self._retained)

    def draw(self, rng: np.random.Generator) -> Indices:
        """Return the batch of one step, `[B]` int64 into the retained pairs; empty if nothing is held in place."""
        size = min(self._settings.retain_batch_size, len(self._retained))
        return rng.choice(len(self._retained), size, replace=False) if size else np.empty(0, dtype=np.int64)

    def pixels(self, batch: Indices) -> Images:
        """Return the images of a batch, `[B, H, W, 3]` uint8."""
        return self._context.pairs.take(self._retained[batch])

    def loss(self, clip: Clip, images: Tensor, batch: Indices) -> Tensor:
        """Return the weighted loss of a batch, a scalar; its embeddings under `clip` are `images[B, D]`. 0 if empty."""
        if len(batch) == 0:
            return torch.zeros((), device=clip.device)
        if self._before is None:
            loss = clip_loss(images, clip.encode_tokens(self._tokens(batch)), clip.logit_scale)
        else:
            loss = self._distance(clip, self._before, images, batch)
        return self._settings.retain_weight * loss

    def _distance(self, clip: Clip, before: _Before, images: Tensor, batch: Indices) -> Tensor:
        """Return how far the embeddings have moved, mean(1 − cos), in [0, 2] for each tower that is trained."""
        moved = 1 - (images * before.images[batch].to(clip.device)).sum(dim=1).mean()
        if before.texts is None:
            return moved
        texts = clip.encode_tokens(self._tokens(batch))
        return moved + 1 - (texts * before.texts[batch].to(clip.device)).sum(dim=1).mean()

    def _tokens(self, batch: Indices) -> Tensor:
        return self._context.pair_tokens[torch.from_numpy(self._retained[batch])]

    def _embed(self) -> _Before:
        clip = self._context.clip("poisoned")
        images = embed_pair_images(clip, self._context.pairs, self._retained)
        if self._settings.unlearn_towers == "image":
            return _Before(images, None)
        return _Before(images, embed_tokens(clip, self._tokens(np.arange(len(self._retained)))))


def retained_pairs(context: StageContext, settings: UnlearnSettings) -> Indices:
    """Return the pairs that are held in place, `[R]` int64 into D: drawn from the trusted ones, the same all epochs.

    Raises:
        StageFault: if hardly any pair is trusted; what is not held would be unlearnt with the rest.
    """
    trusted = trusted_pairs(context, settings)
    if len(trusted) < 2:
        advice = "lower suspicious_ratio, raise screened_ratio or retain_ratio, or hold nothing (retain_weight: 0)"
        raise StageFault(f"{len(trusted)} pairs are left to hold in place: {advice}")
    count = min(settings.retain_samples, len(trusted))
    return np.sort(context.rng("retained").choice(trusted, count, replace=False))


def trusted_pairs(context: StageContext, settings: UnlearnSettings) -> Indices:
    """Return the pairs that may be held in place, `[T]` int64 into D: those trusted most, and no suspects."""
    trust = Trust.of(context.artifact("trust"))
    count = max(2, round(settings.retain_ratio * len(trust.pairs)))
    trusted = trust.pairs[trust.ranked(descending=True)[:count]]
    return np.setdiff1d(trusted.numpy(), context.artifact("suspects").tensors["indices"].numpy())
