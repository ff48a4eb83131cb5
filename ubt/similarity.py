"""Cosine similarity of image–caption pairs under a model."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ubt.data.base import Pairs
from ubt.models.clip import Clip

_BLOCK = 1024


@torch.no_grad()
def pair_similarities(clip: Clip, pairs: Pairs, tokens: Tensor, indices: NDArray[np.int64]) -> Tensor:
    """Return the similarity of each chosen pair, `[S]` float32 in [−1, 1], on the CPU.

    `tokens[N, L]` are the captions of all N pairs, `indices[S]` the chosen ones. Images are read in blocks,
    so that data sets larger than memory pass through.
    """
    blocks = [indices[start : start + _BLOCK] for start in range(0, len(indices), _BLOCK)]
    return torch.cat([_block_similarities(clip, pairs, tokens, block) for block in blocks])


def _block_similarities(clip: Clip, pairs: Pairs, tokens: Tensor, indices: NDArray[np.int64]) -> Tensor:
    parts = []
    images, texts = pairs.take(indices), tokens[indices]
    for start in range(0, len(indices), 256):
        image, text = (
            clip.encode_images(images[start : start + 256]),
            clip.encode_tokens(texts[start : start + 256]),
        )
        parts.append((image * text).sum(dim=1).cpu())
    return torch.cat(parts)
