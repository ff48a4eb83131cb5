"""Text towers whose attention can be looked into: those of open_clip (CLIP, CoCa, SigLIP) and of `transformers`."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from open_clip.hf_model import ClsLastHiddenStatePooler, ClsPooler, HFTextEncoder, MeanPooler
from open_clip.transformer import Attention, CustomResidualAttentionBlock, ResidualAttentionBlock
from torch import Tensor, nn
from torch.nn import functional

from ubt.common.errors import StageFault
from ubt.models.clip import Clip

_BLOCKS = (ResidualAttentionBlock, CustomResidualAttentionBlock)


class TextTower(ABC):
    """The parts of a text encoder that attribution looks into."""

    @staticmethod
    def of(clip: Clip) -> TextTower:
        """Find them in a model.

        Raises:
            StageFault: if its text tower is of no kind that is known here.
        """
        text = getattr(clip.net, "text", clip.net)
        if isinstance(text, HFTextEncoder):
            return _Transformers(text)
        blocks = getattr(getattr(text, "transformer", None), "resblocks", ())
        if blocks and all(isinstance(block, _BLOCKS) for block in blocks):
            return _OpenClip(text, tuple(blocks))
        raise StageFault("attribution needs a text tower of open_clip or of `transformers` whose attention it can read")

    @property
    @abstractmethod
    def token_embedding(self) -> nn.Module:
        """Return what turns tokens `[N, L]` into embeddings `[N, L, W]`."""

    @abstractmethod
    def pooled(self, tokens: Tensor) -> Tensor:
        """Return the weight of each position in the caption's embedding, `[N, P]` float32 on the CPU, summing to 1.

        P is L, or one more where the tower appends a class token of its own.

        Raises:
            StageFault: if positions are pooled in a way that has no such weights.
        """

    @abstractmethod
    def recorded_attention(self) -> AbstractContextManager[list[Tensor]]:
        """Collect the attention maps `[N, heads, P, P]` of every block, first to last, on the graph."""


@dataclass(frozen=True)
class _OpenClip(TextTower):
    """A transformer of open_clip's: causal or not, pooled at the end of text, at one place or at a class token."""

    text: Any
    blocks: tuple[Any, ...]

    @property
    def token_embedding(self) -> nn.Module:
        return cast(nn.Module, self.text.token_embedding)

    def pooled(self, tokens: Tensor) -> Tensor:
        length = tokens.shape[1]
        if getattr(self.text, "cls_emb", None) is not None:  # appended, and pooled for any `pool_type`
            return functional.one_hot(torch.full((len(tokens),), length), length + 1).float()
        pool = getattr(self.text, "text_pool_type", None) or getattr(self.text, "pool_type", "")
        if pool == "argmax":  # the end-of-text token has the highest number of the vocabulary
            rows = tokens.argmax(dim=1)
        elif pool == "eos":
            eos_id = getattr(self.text, "text_eos_id", None) or getattr(self.text, "eos_id", None)
            rows = torch.eq(tokens, eos_id or 0).int().argmax(dim=1)
        elif pool in {"first", "last"}:
            rows = torch.full((len(tokens),), 0 if pool == "first" else length - 1)
        else:
            raise StageFault(f"attribution cannot read a text tower that is pooled by `{pool}`")
        return functional.one_hot(rows.cpu(), length).float()

    @contextmanager
    def recorded_attention(self) -> Iterator[list[Tensor]]:
        """Make the blocks compute attention step by step.

        `nn.MultiheadAttention` returns its maps detached from the graph, so attention is replaced, on these instances
        alone and for this context alone.
        """
        maps: list[Tensor] = []
        with ExitStack() as undone:
            for block in self.blocks:
                custom = isinstance(block.attn, Attention)
                owner, name = (block.attn, "forward") if custom else (block, "attention")
                setattr(owner, name, _custom_attention(block.attn, maps) if custom else _attention(block.attn, maps))
                undone.callback(owner.__dict__.pop, name, None)
            yield maps


def _attention(layer: nn.MultiheadAttention, maps: list[Tensor]) -> object:
    def attention(
        q_x: Tensor, k_x: Tensor | None = None, v_x: Tensor | None = None, attn_mask: Tensor | None = None
    ) -> Tensor:
        inputs = q_x if layer.batch_first else q_x.transpose(0, 1)
        count, length, width = inputs.shape
        projected = functional.linear(inputs, layer.in_proj_weight, layer.in_proj_bias)
        query, key, value = projected.view(count, length, 3, layer.num_heads, -1).permute(2, 0, 3, 1, 4)
        scores = query @ key.transpose(-2, -1) / math.sqrt(layer.head_dim)
        weights = _kept(_masked(scores, attn_mask).softmax(dim=-1), maps)
        mixed = (weights @ value).transpose(1, 2).reshape(count, length, width)
        output = layer.out_proj(mixed)
        return cast(Tensor, output if layer.batch_first else output.transpose(0, 1))

    return attention


def _custom_attention(layer: Any, maps: list[Tensor]) -> object:  # noqa: ANN401 — open_clip has no types
    """Return the attention of open_clip's custom blocks: queries and keys may be normed, heads scaled."""

    def attention(x: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        count, length, width = x.shape
        projected = functional.linear(x, layer.in_proj_weight, layer.in_proj_bias)
        query, key, value = projected.view(count, length, 3, layer.num_heads, -1).permute(2, 0, 3, 1, 4)
        query, key = layer.ln_q(query), layer.ln_k(key)
        weights = _kept(_masked(query @ key.transpose(-2, -1) * layer.scale, attn_mask).softmax(dim=-1), maps)
        mixed = weights @ value
        mixed = mixed if layer.head_scale is None else mixed * layer.head_scale
        return cast(Tensor, layer.out_proj(layer.ln_inner(mixed.transpose(1, 2).reshape(count, length, width))))

    return attention


def _kept(weights: Tensor, maps: list[Tensor]) -> Tensor:
    if not weights.requires_grad:
        weights.requires_grad_()  # all weights of the model are frozen
    maps.append(weights)
    return weights


def _masked(scores: Tensor, mask: Tensor | None) -> Tensor:
    """Apply an additive or boolean mask, `[L, L]` or `[N·heads, L, L]`, to `scores[N, heads, L, L]`."""
    if mask is None:
        return scores
    if mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=scores.dtype).masked_fill(mask, -math.inf)
    return scores + (mask if mask.ndim == 2 else mask.view(scores.shape))


@dataclass(frozen=True)
class _Transformers(TextTower):
    """A tower of the package `transformers`, pooled at its first position or over all that are no padding."""

    text: Any

    @property
    def token_embedding(self) -> nn.Module:
        return cast(nn.Module, self.text.transformer.get_input_embeddings())

    def pooled(self, tokens: Tensor) -> Tensor:
        pooler = self.text.pooler
        if isinstance(pooler, MeanPooler):
            attended = (tokens != self.text.config.pad_token_id).float().cpu()
            return cast(Tensor, attended / attended.sum(dim=1, keepdim=True).clamp(min=1))
        if isinstance(pooler, ClsPooler | ClsLastHiddenStatePooler):
            return functional.one_hot(torch.full((len(tokens),), pooler.cls_token_position), tokens.shape[1]).float()
        raise StageFault(f"attribution cannot read a text tower that is pooled by `{type(pooler).__name__}`")

    @contextmanager
    def recorded_attention(self) -> Iterator[list[Tensor]]:
        """Have the tower return its maps. Only its `eager` attention, step by step, has any."""
        tower, maps = self.text.transformer, []
        before = tower.config._attn_implementation, tower.config.output_attentions

        def keep(_module: nn.Module, _inputs: object, output: Any) -> None:  # noqa: ANN401 — of each tower's own kind
            maps.extend(output.attentions)

        def on_graph(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
            return output if output.requires_grad else output.detach().requires_grad_()  # the model may be frozen

        with ExitStack() as undone:
            undone.callback(tower.set_attn_implementation, before[0])
            undone.callback(setattr, tower.config, "output_attentions", before[1])
            tower.set_attn_implementation("eager")
            tower.config.output_attentions = True
            undone.callback(tower.register_forward_hook(keep).remove)
            undone.callback(self.token_embedding.register_forward_hook(on_graph).remove)
            yield maps
