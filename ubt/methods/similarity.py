"""Embeddings and cosine similarities of image–caption pairs under a model, for data sets larger than memory."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ubt.data.base import PairSource
from ubt.models.clip import Clip, embed_images, embed_tokens

_IMAGES = 1024
"""Images that are read at a time."""
_CAPTIONS = 16_384
"""Captions among which equal ones are looked for; their embeddings are in memory together."""


def pair_similarities(clip: Clip, pairs: PairSource, tokens: Tensor, indices: NDArray[np.int64]) -> Tensor:
    """Return the similarity of each chosen pair, `[S]` float32 in [−1, 1], on the CPU.

    `tokens[N, L]` are the captions of all N pairs, `indices[S]` the chosen ones. Equal captions are embedded once:
    data sets with captions from templates repeat them.
    """
    return torch.cat([_block_similarities(clip, pairs, tokens, block) for block in _blocks(indices, _CAPTIONS)])


def embed_pair_images(clip: Clip, pairs: PairSource, indices: NDArray[np.int64]) -> Tensor:
    """Return unit embeddings `[S, D]` float32 on the CPU of the chosen pairs' images, without gradients."""
    return torch.cat([embed_images(clip, pairs.take(block)) for block in _blocks(indices, _IMAGES)])


def _blocks(indices: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    return [indices[start : start + size] for start in range(0, len(indices), size)]


def _block_similarities(clip: Clip, pairs: PairSource, tokens: Tensor, indices: NDArray[np.int64]) -> Tensor:
    captions, caption_of_pair = torch.unique(tokens[indices], dim=0, return_inverse=True)
    texts = embed_tokens(clip, captions)[caption_of_pair]
    return (embed_pair_images(clip, pairs, indices) * texts).sum(dim=1)
