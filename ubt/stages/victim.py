"""The victim's models: a clean one trained or loaded, the backdoored one, and the oracle's, trained without poison."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ubt.common.errors import StageFault
from ubt.data.base import subset
from ubt.engine.context import Epoch, Output, PrivilegedContext, StageContext
from ubt.engine.epochs import train_by_recipe
from ubt.engine.poisoning import PoisonManifest
from ubt.methods.training import Recipe
from ubt.models.activation import model_described_by
from ubt.models.build import build_clip
from ubt.models.checkpoints import load_weights
from ubt.models.clip import Clip
from ubt.models.tokens import ChosenTokens, small_tokens
from ubt.trials.config import ImplantSettings, PretrainSettings


def pretrain(context: PrivilegedContext) -> Iterator[Epoch]:
    """Yield the epochs of CLIP training on the clean pre-training pairs.

    Raises:
        StageFault: if the data has no such pairs, or the loss is not finite.
    """
    pairs = context.data.pretrain
    if pairs is None:
        raise StageFault("the data has no `pretrain` pairs; give them, or a model with `pretrained` or `checkpoint`")
    settings = context.settings(PretrainSettings, "pretrain")
    clip = build_clip(
        model_described_by(context.node.settings["model"], random_weights=True), context.seed, context.device
    )
    tokens = small_tokens(list(pairs.captions), clip.tokenize)
    recipe = Recipe(**settings.model_dump())
    yield from train_by_recipe(context, clip, pairs, tokens, recipe, lambda: Output(model=clip.state()))


def load(context: PrivilegedContext) -> Output:
    """Return the clean model's weights.

    Raises:
        UserError: if they cannot be fetched or do not fit.
    """
    model = model_described_by(context.node.settings, context.file("folder"), checkpoint=context.file("checkpoint"))
    clip = build_clip(model, context.seed, context.device)
    return Output(model=clip.state())


def implant(context: PrivilegedContext) -> Iterator[Epoch]:
    """Yield the epochs of poisoned fine-tuning, or the given poisoned checkpoint as one.

    Raises:
        StageFault: if the loss is not finite.
        UserError: if a checkpoint cannot be loaded.
    """
    clip = context.clip("clean")
    checkpoint = context.file("checkpoint")
    if checkpoint:
        yield _given(context, clip, checkpoint)
        return
    pairs, tokens = context.pairs, context.pair_tokens
    yield from train_by_recipe(context, clip, pairs, tokens, recipe(context), lambda: _output(context, clip))


def recipe(context: PrivilegedContext) -> Recipe:
    """Return how the implant is trained, from the settings of a stage that trains as it does."""
    settings = ImplantSettings.model_validate({**context.node.settings, "checkpoint": None})
    return Recipe(**settings.model_dump(exclude={"min_asr", "checkpoint"}))


def _given(context: PrivilegedContext, clip: Clip, checkpoint: Path) -> Epoch:
    load_weights(clip.net, checkpoint)
    clip.net.eval()
    return Epoch(0, lambda: _output(context, clip))


def _output(context: PrivilegedContext, clip: Clip) -> Output:
    rates = {split: context.evaluator.rates(clip, split, by_class=True).as_json() for split in ("val", "test")}
    return Output(model=clip.state(), facts=dict(rates))


def retrain(context: PrivilegedContext) -> Iterator[Epoch]:
    """Yield the epochs of fine-tuning on what is not poisoned. It is given the manifest, so it is no defense.

    Raises:
        StageFault: if the loss is not finite, or it is unknown what is poisoned.
    """
    if not context.manifest.known:
        raise StageFault("it is unknown which pairs are poisoned, so they cannot be left out")
    kept = np.setdiff1d(np.arange(len(context.pairs)), context.manifest.indices)
    pairs, tokens = subset(context.pairs, kept), ChosenTokens(context.pair_tokens, kept)
    clip = context.clip("clean")

    def snapshot() -> Output:
        return Output(model=clip.state(), facts={"pairs": len(kept)})

    yield from train_by_recipe(context, clip, pairs, tokens, recipe(context), snapshot)


def diagnose_retrain(context: StageContext, output: Output, manifest: PoisonManifest) -> dict[str, float]:
    """Return how many pairs were left to train on; no others were needed, but the manifest was."""
    return {"pairs": float(len(context.pairs) - len(manifest.indices)), "clean_pairs": 0.0}
