"""Attribute each selected pair's similarity to the tokens of its caption (the paper's fourth stage)."""

from __future__ import annotations

from functools import partial

import torch
from pydantic import JsonValue
from torch import Tensor

from ubt.common.hashing import torch_generator
from ubt.defenses.ubt import AttributeSettings
from ubt.engine.context import Output, StageContext
from ubt.engine.poisoning import PoisonManifest
from ubt.methods.attribution import attention_relevance, gradient_relevance, random_relevance
from ubt.models.clip import Clip

_BLOCK = 64
_SHOWN = 24
"""Captions that are kept as facts: enough for a figure."""


def run(context: StageContext) -> Output:
    """Return `relevance[K, L]` float32, summing to 1 over a caption's words, and where they are, `words[K, L]` bool.

    The fact `captions` has the first few for the eye (figure 5): for each, its tokens as [text, relevance].

    Raises:
        StageFault: if the model's text tower cannot be looked into.
    """
    indices = context.artifact("selection").tensors["indices"]
    clip, tokens = context.clip("overfitted"), context.pair_tokens[indices]
    words = clip.words(tokens)
    relevance = _relevance(context, clip, indices, words)
    first = zip(tokens[:_SHOWN], relevance[:_SHOWN], words[:_SHOWN], strict=True)
    captions: list[JsonValue] = [_shown(clip, *caption) for caption in first]
    return Output(tensors={"relevance": relevance, "words": words}, facts={"captions": captions})


def diagnose(context: StageContext, output: Output, manifest: PoisonManifest) -> dict[str, float]:
    """Return the share of relevance on the target's name, over the selected pairs that are poisoned.

    Nothing if no attack is known, or no selected pair is known to be poisoned.
    """
    indices = context.artifact("selection").tensors["indices"]
    marks = torch.from_numpy(manifest.marks(indices))
    if manifest.attack is None or not marks.any():
        return {}
    name = context.tokenize([manifest.attack.target])
    on_target = torch.isin(context.pair_tokens[indices[marks]], name[context.words(name)])
    relevance: Tensor = output.tensors["relevance"][marks]
    return {"target_share": float((relevance * on_target).sum(dim=1).mean())}


def _relevance(context: StageContext, clip: Clip, indices: Tensor, words: Tensor) -> Tensor:
    """Return the relevance of each token of the pairs at `indices[K]` by the method of the settings, `[K, L]`."""
    settings = context.settings(AttributeSettings)
    method = settings.attribution
    if method == "random":
        return random_relevance(context.pair_tokens[indices], words, torch_generator(context.seed, "attribute", method))
    attention = partial(attention_relevance, layers=settings.attribution_layers)
    score = attention if method == "chefer" else gradient_relevance
    blocks = [
        score(clip, context.pairs.take(block.numpy()), context.pair_tokens[block])
        for block in torch.split(indices, _BLOCK)
    ]
    return torch.cat(blocks)


def _shown(clip: Clip, tokens: Tensor, relevance: Tensor, words: Tensor) -> list[JsonValue]:
    """Return the words of one caption, of which `tokens`, `relevance` and `words` are `[L]`, as [text, relevance]."""
    return [
        [clip.token_text(int(token)), float(share)]
        for token, share in zip(tokens[words], relevance[words], strict=True)
    ]
