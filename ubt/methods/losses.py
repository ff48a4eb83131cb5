"""CLIP's loss of a batch, and each pair's share of it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def clip_loss(images: Tensor, texts: Tensor, scale: Tensor) -> Tensor:
    """Return CLIP's symmetric cross entropy of unit embeddings `images[N, D]`, `texts[N, D]`: a scalar.

    Source: Radford et al., 2021 (arXiv 2103.00020), figure 3.
    """
    logits = scale * images @ texts.T
    matching = torch.arange(len(images), device=images.device)
    return (functional.cross_entropy(logits, matching) + functional.cross_entropy(logits.T, matching)) / 2


def pair_losses(images: Tensor, texts: Tensor, scale: Tensor) -> Tensor:
    """Return each pair's share of CLIP's loss, `[N]`, of unit embeddings `images[N, D]`, `texts[N, D]`.

    A pair's loss is the mean of two cross entropies: its caption among all captions, its image among all images.
    The mean over pairs is `clip_loss`.
    """
    logits = scale * images @ texts.T
    own = torch.arange(len(images), device=images.device)
    of_captions = functional.cross_entropy(logits, own, reduction="none")
    return (of_captions + functional.cross_entropy(logits.T, own, reduction="none")) / 2
