"""Train a clean model from nothing, for the embedded victim."""

from __future__ import annotations

from collections.abc import Iterator

from ubt.errors import StageFault
from ubt.models.build import build_clip
from ubt.stages.context import Epoch, Output, StageContext
from ubt.training import Recipe, train_on_pairs
from ubt.victim import ModelSettings, PretrainSettings


def run(context: StageContext) -> Iterator[Epoch]:
    """Yield the epochs of CLIP training on the clean pre-training pairs.

    Raises:
        StageFault: if the data has no such pairs, or the loss is not finite.
    """
    pairs = context.data.pretrain
    if pairs is None:
        raise StageFault("the data has no `pretrain` pairs; give them, or a model with `pretrained` or `checkpoint`")
    settings = context.settings(PretrainSettings, "pretrain")
    given = context.settings(ModelSettings, "model")
    model = ModelSettings(name=given.name, precision=given.precision, random_weights=True)
    clip = build_clip(model, context.seed, context.workspace.device)
    tokens = clip.tokenize(list(pairs.captions))
    recipe = Recipe(**settings.model_dump())
    for number, loss in train_on_pairs(clip, pairs, tokens, recipe, context.seed, "pretrain"):
        yield Epoch(number, lambda: Output(model=clip.state()), loss)
