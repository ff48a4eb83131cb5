"""How much each caption token matters for the similarity of its pair.

Attention relevance of Chefer, Gur & Wolf, "Generic Attention-model Explainability", ICCV 2021
(arXiv 2103.15679), equations 5 and 6 for self-attention: R ← R + mean_h((∇A ⊙ A)⁺) · R over the text blocks,
read at the row that the model pools. And input × gradient of the token embeddings, to compare with.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import cast

import torch
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor, nn
from torch.nn import functional

from ubt.common.errors import StageFault
from ubt.data.base import Images
from ubt.models.clip import Clip


@dataclass(frozen=True)
class TextTower:
    """The parts of a text encoder that attribution looks into."""

    blocks: tuple[ResidualAttentionBlock, ...]
    token_embedding: nn.Embedding
    pool: str
    eos_id: int | None

    @classmethod
    def of(cls, clip: Clip) -> TextTower:
        """Find them in any open_clip model with its own text transformer.

        Raises:
            StageFault: if the text tower is of another kind (a Hugging Face one, say).
        """
        text = getattr(clip.net, "text", clip.net)
        blocks = getattr(getattr(text, "transformer", None), "resblocks", ())
        pool = getattr(text, "text_pool_type", None) or getattr(text, "pool_type", "")
        plain = bool(blocks) and all(isinstance(block, ResidualAttentionBlock) for block in blocks)
        if not plain or pool not in {"argmax", "eos"} or getattr(text, "cls_emb", None) is not None:
            raise StageFault(
                "attribution needs a model with open_clip's own text transformer, pooled at the end of text"
            )
        eos_id = getattr(text, "text_eos_id", None) or getattr(text, "eos_id", None)
        return cls(tuple(blocks), cast(nn.Embedding, text.token_embedding), pool, eos_id)

    def end_of_text(self, tokens: Tensor) -> Tensor:
        """Return the pooled position of each caption, `[N]` int64, of `tokens[N, L]`."""
        if self.pool == "eos":
            return torch.eq(tokens, self.eos_id or 0).int().argmax(dim=1)
        return tokens.argmax(dim=1)  # the end-of-text token has the highest number of the vocabulary


def real_tokens(tokens: Tensor, end_of_text: Tensor) -> Tensor:
    """Return which of `tokens[N, L]` are words of the caption: between start and end of text, `[N, L]` bool."""
    positions = torch.arange(tokens.shape[1])
    return (positions > 0) & (positions < end_of_text[:, None])


def attention_relevance(clip: Clip, images: Images, tokens: Tensor) -> Tensor:
    """Return the relevance of each token, `[N, L]` float32, ≥ 0, summing to 1 over the words of a caption.

    `images[N, H, W, 3]` uint8 and `tokens[N, L]` int64 are pairs. Source: Chefer et al., ICCV 2021, eq. 5–6.

    Raises:
        StageFault: if the text tower is none of open_clip's.
    """
    tower = TextTower.of(clip)
    exact = replace(clip, precision="float32")
    with torch.no_grad():
        image_embeddings = exact.encode_images(images)
    with torch.enable_grad(), _recorded_attention(tower.blocks) as maps:
        similarity = (image_embeddings * exact.encode_tokens(tokens)).sum()
        gradients = torch.autograd.grad(similarity, maps)
    relevance = torch.eye(tokens.shape[1], device=clip.device).expand(len(tokens), -1, -1)
    for attention, gradient in zip(maps, gradients, strict=True):
        relevance = relevance + (gradient * attention.detach()).clamp(min=0).mean(dim=1) @ relevance
    ends = tower.end_of_text(tokens)
    pooled = relevance.cpu()[torch.arange(len(tokens)), ends]
    return _normalised(pooled, real_tokens(tokens, ends))


def gradient_relevance(clip: Clip, images: Images, tokens: Tensor) -> Tensor:
    """Return |embedding · gradient| of each token, `[N, L]` float32, summing to 1 over the words of a caption.

    Source: input × gradient (Shrikumar et al., 2016, arXiv 1605.01713).
    """
    tower = TextTower.of(clip)
    exact = replace(clip, precision="float32")
    kept: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        kept.append(output.detach().requires_grad_())
        return kept[0]

    with torch.no_grad():
        image_embeddings = exact.encode_images(images)
    handle = tower.token_embedding.register_forward_hook(keep)
    try:
        with torch.enable_grad():
            similarity = (image_embeddings * exact.encode_tokens(tokens)).sum()
            (gradient,) = torch.autograd.grad(similarity, kept)
    finally:
        handle.remove()
    ends = tower.end_of_text(tokens)
    return _normalised((kept[0].detach() * gradient).sum(dim=2).abs().cpu(), real_tokens(tokens, ends))


def random_relevance(tokens: Tensor, words: Tensor, generator: torch.Generator) -> Tensor:
    """Return random relevance, `[N, L]` float32, summing to 1 over the `words[N, L]` bool of a caption."""
    return _normalised(torch.rand(tokens.shape, generator=generator), words)


def _normalised(relevance: Tensor, words: Tensor) -> Tensor:
    """Keep the words and make them sum to 1; a caption in which nothing matters is shared out equally."""
    kept = relevance.float() * words
    total = kept.sum(dim=1, keepdim=True)
    equal = words.float() / words.sum(dim=1, keepdim=True).clamp(min=1)
    return torch.where(total > 0, kept / total.clamp(min=torch.finfo(torch.float32).tiny), equal)


@contextmanager
def _recorded_attention(blocks: tuple[ResidualAttentionBlock, ...]) -> Iterator[list[Tensor]]:
    """Make the blocks compute attention step by step, and collect the maps `[N, heads, L, L]`, on the graph.

    `nn.MultiheadAttention` returns its maps detached from the graph, so the blocks' `attention` is replaced,
    on these instances alone and for this context alone.
    """
    maps: list[Tensor] = []
    try:
        for block in blocks:
            block.attention = _explicit_attention(block, maps)
        yield maps
    finally:
        for block in blocks:
            block.__dict__.pop("attention", None)


def _explicit_attention(block: ResidualAttentionBlock, maps: list[Tensor]) -> object:
    layer = cast(nn.MultiheadAttention, block.attn)

    def attention(
        q_x: Tensor, k_x: Tensor | None = None, v_x: Tensor | None = None, attn_mask: Tensor | None = None
    ) -> Tensor:
        inputs = q_x if layer.batch_first else q_x.transpose(0, 1)
        count, length, width = inputs.shape
        projected = functional.linear(inputs, layer.in_proj_weight, layer.in_proj_bias)
        query, key, value = projected.view(count, length, 3, layer.num_heads, -1).permute(2, 0, 3, 1, 4)
        scores = query @ key.transpose(-2, -1) / math.sqrt(layer.head_dim)
        weights = _masked(scores, attn_mask).softmax(dim=-1)
        if not weights.requires_grad:
            weights.requires_grad_()  # all weights of the model are frozen
        maps.append(weights)
        mixed = (weights @ value).transpose(1, 2).reshape(count, length, width)
        output = layer.out_proj(mixed)
        return cast(Tensor, output if layer.batch_first else output.transpose(0, 1))

    return attention


def _masked(scores: Tensor, mask: Tensor | None) -> Tensor:
    """Apply an additive or boolean mask, `[L, L]` or `[N·heads, L, L]`, to `scores[N, heads, L, L]`."""
    if mask is None:
        return scores
    if mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=scores.dtype).masked_fill(mask, -math.inf)
    return scores + (mask if mask.ndim == 2 else mask.view(scores.shape))
