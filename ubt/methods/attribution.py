"""How much each caption token matters for the similarity of its pair.

Attention relevance of Chefer, Gur & Wolf, "Generic Attention-model Explainability", ICCV 2021
(arXiv 2103.15679), equations 5 and 6 for self-attention: R ← R + mean_h((∇A ⊙ A)⁺) · R over the text blocks,
read where the model pools. And input × gradient of the token embeddings, to compare with.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from ubt.data.base import Images
from ubt.methods.text_towers import TextTower
from ubt.models.clip import Clip


def attention_relevance(clip: Clip, images: Images, tokens: Tensor, layers: Literal["all", "last"] = "all") -> Tensor:
    """Return the relevance of each token, `[N, L]` float32, ≥ 0, summing to 1 over the words of a caption.

    `images[N, H, W, 3]` uint8 and `tokens[N, L]` int64 are pairs. R is taken over all blocks of the text tower, or over
    the `last` alone, as the authors' example for CLIP does. Source: Chefer et al., ICCV 2021, eq. 5–6.

    Raises:
        StageFault: if the text tower is of no kind whose attention is known.
    """
    tower = TextTower.of(clip)
    pooled = tower.pooled(tokens)
    exact = replace(clip, precision="float32", cut_text=False)
    with torch.no_grad():
        image_embeddings = exact.encode_images(images)
    with torch.enable_grad(), tower.recorded_attention() as maps:
        similarity = (image_embeddings * exact.encode_tokens(tokens)).sum()
        gradients = torch.autograd.grad(similarity, maps)
    relevance = torch.eye(maps[0].shape[-1], device=clip.device).expand(len(tokens), -1, -1)
    blocks = slice(None) if layers == "all" else slice(-1, None)
    for attention, gradient in zip(maps[blocks], gradients[blocks], strict=True):
        relevance = relevance + (gradient * attention.detach()).clamp(min=0).mean(dim=1) @ relevance
    read = (pooled[:, None] @ relevance.cpu())[:, 0, : tokens.shape[1]]
    return _normalised(read, clip.words(tokens))


def gradient_relevance(clip: Clip, images: Images, tokens: Tensor) -> Tensor:
    """Return |embedding · gradient| of each token, `[N, L]` float32, summing to 1 over the words of a caption.

    Source: input × gradient (Shrikumar et al., 2016, arXiv 1605.01713).
    """
    tower = TextTower.of(clip)
    exact = replace(clip, precision="float32", cut_text=False)
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
    return _normalised((kept[0].detach() * gradient).sum(dim=2).abs().cpu(), clip.words(tokens))


def random_relevance(tokens: Tensor, words: Tensor, generator: torch.Generator) -> Tensor:
    """Return random relevance, `[N, L]` float32, summing to 1 over the `words[N, L]` bool of a caption."""
    return _normalised(torch.rand(tokens.shape, generator=generator), words)


def _normalised(relevance: Tensor, words: Tensor) -> Tensor:
    """Keep the words and make them sum to 1; a caption in which nothing matters is shared out equally."""
    kept = relevance.float() * words
    total = kept.sum(dim=1, keepdim=True)
    equal = words.float() / words.sum(dim=1, keepdim=True).clamp(min=1)
    return torch.where(total > 0, kept / total.clamp(min=torch.finfo(torch.float32).tiny), equal)
