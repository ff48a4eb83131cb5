"""Text towers that need not look at the padding behind the longest caption of a batch.

Where attention is causal and a caption's embedding is read at its end of text, nothing behind it matters: 77 positions
are computed for captions of a dozen. The embeddings are the same but for the order of sums inside matrix products, in
float32 a few times 1e-7; so it is a setting and part of keys.
"""

from __future__ import annotations

from typing import Any

import torch
from open_clip.hf_model import ClsLastHiddenStatePooler, ClsPooler, HFTextEncoder, MeanPooler
from open_clip.transformer import text_global_pool
from torch import Tensor, nn

_AT_THE_END = ("argmax", "eos")


def can_be_cut(net: nn.Module) -> bool:
    """Return whether a model's text tower gives the same embeddings without the padding that a batch has in common."""
    text: Any = getattr(net, "text", net)
    if isinstance(text, HFTextEncoder):  # it needs to know what is padding
        return isinstance(text.pooler, MeanPooler | ClsPooler | ClsLastHiddenStatePooler)
    plain = getattr(text, "cls_emb", None) is None and not getattr(text, "use_pad_mask", False)
    causal = isinstance(getattr(text, "attn_mask", None), Tensor)
    return plain and causal and _pool(text) in _AT_THE_END and hasattr(text, "token_embedding")


def longest(net: nn.Module, tokens: Tensor) -> int:
    """Return how many positions the longest of `tokens[N, L]` takes, its end included; at least one."""
    text: Any = getattr(net, "text", net)
    if isinstance(text, HFTextEncoder):
        used = (tokens != text.config.pad_token_id).any(dim=0).nonzero()
        return int(used[-1]) + 1 if len(used) else 1
    ends = tokens.argmax(dim=1) if _pool(text) == "argmax" else torch.eq(tokens, _eos(text) or 0).int().argmax(dim=1)
    if _pool(text) == "eos" and not torch.eq(tokens, _eos(text) or 0).any(dim=1).all():
        return tokens.shape[1]  # a caption without an end is read at its start, as ever
    return int(ends.max()) + 1 if len(ends) else 1


def encode_cut(net: nn.Module, tokens: Tensor) -> Tensor:
    """Return the embeddings `[N, D]` of `tokens[N, L]`, which may be fewer positions than the tower has."""
    text: Any = getattr(net, "text", net)
    if isinstance(text, HFTextEncoder):
        found: Tensor = net.encode_text(tokens)  # type: ignore[operator]
        return found
    length, cast = tokens.shape[1], text.transformer.get_cast_dtype()
    hidden = text.token_embedding(tokens).to(cast) + text.positional_embedding[:length].to(cast)
    hidden = text.ln_final(text.transformer(hidden, attn_mask=text.attn_mask[:length, :length]))
    pooled: Tensor = text_global_pool(hidden, tokens, _pool(text), eos_token_id=_eos(text))
    if text.text_projection is None:
        return pooled
    linear = isinstance(text.text_projection, nn.Linear)
    projected: Tensor = text.text_projection(pooled) if linear else pooled @ text.text_projection
    return projected


def _pool(text: Any) -> str:  # noqa: ANN401 — open_clip has no types
    found: str = getattr(text, "text_pool_type", "") or getattr(text, "pool_type", "")
    return found


def _eos(text: Any) -> int | None:  # noqa: ANN401
    found: int | None = getattr(text, "text_eos_id", None) or getattr(text, "eos_id", None)
    return found
