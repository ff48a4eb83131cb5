"""Embeddings and cosine similarities of image–caption pairs under a model, for data sets larger than memory."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ubt.data.base import Pairs
from ubt.models.clip import Clip, embed_images, embed_tokens

_BLOCK = 1024
"""Pairs whose images are read at a time."""


def pair_similarities(clip: Clip, pairs: Pairs, tokens: Tensor, indices: NDArray[np.int64]) -> Tensor:
    """Return the similarity of each chosen pair, `[S]` float32 in [−1, 1], on the CPU.

    `tokens[N, L]` are the captions of all N pairs, `indices[S]` the chosen ones. Equal captions of a block are
    embedded once: data sets with captions from templates repeat them.
    """
    return torch.cat([_block_similarities(clip, pairs, tokens, block) for block in _blocks(indices)])


def embed_pair_images(clip: Clip, pairs: Pairs, indices: NDArray[np.int64]) -> Tensor:
    """Return unit embeddings `[S, D]` float32 on the CPU of the chosen pairs' images, without gradients."""
    return torch.cat([embed_images(clip, pairs.take(block)) for block in _blocks(indices)])


def _blocks(indices: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    return [indices[start : start + _BLOCK] for start in range(0, len(indices), _BLOCK)]


def _block_similarities(clip: Clip, pairs: Pairs, tokens: Tensor, indices: NDArray[np.int64]) -> Tensor:
    captions, caption_of_pair = torch.unique(tokens[indices], dim=0, return_inverse=True)
    texts = embed_tokens(clip, captions)[caption_of_pair]
    return (embed_images(clip, pairs.take(indices)) * texts).sum(dim=1)
