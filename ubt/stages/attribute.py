"""Attribute each selected pair's similarity to the tokens of its caption (the paper's fourth stage)."""

from __future__ import annotations

import torch
from torch import Tensor

from ubt.attribution import TextTower, attention_relevance, gradient_relevance, random_relevance, real_tokens
from ubt.defenses.ubt import AttributeSettings
from ubt.poisoning import Manifest
from ubt.seeding import torch_generator
from ubt.stages.context import Output, StageContext

_BLOCK = 64


def run(context: StageContext) -> Output:
    """Return `relevance[K, L]` float32, summing to 1 over a caption's words, and their places `words[K, L]` bool.

    Raises:
        StageFault: if the model's text tower cannot be looked into.
    """
    method = context.settings(AttributeSettings).attribution
    indices = context.artifact("selection").tensors["indices"]
    clip, tokens = context.clip("overfitted"), context.pair_tokens[indices]
    words = real_tokens(tokens, TextTower.of(clip).end_of_text(tokens))
    if method == "random":
        generator = torch_generator(context.seed, "attribute", "random")
        return Output(tensors={"relevance": random_relevance(tokens, words, generator), "words": words})
    score = attention_relevance if method == "chefer" else gradient_relevance
    blocks = [
        score(clip, context.pairs.take(block.numpy()), context.pair_tokens[block])
        for block in torch.split(indices, _BLOCK)
    ]
    return Output(tensors={"relevance": torch.cat(blocks), "words": words})


def measure(context: StageContext, output: Output, manifest: Manifest) -> dict[str, float]:
    """Return the share of relevance on the target's name, over the selected pairs that are poisoned."""
    indices = context.artifact("selection").tensors["indices"]
    marks = torch.from_numpy(manifest.marks(indices))
    if not marks.any():
        return {}
    name = context.workspace.clip.tokenize([manifest.attack.target])[0]
    word_ids = name[1 : int(name.argmax())]
    on_target = torch.isin(context.pair_tokens[indices[marks]], word_ids)
    relevance: Tensor = output.tensors["relevance"][marks]
    return {"target_share": float((relevance * on_target).sum(dim=1).mean())}
