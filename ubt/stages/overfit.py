"""Overfit the poisoned model to the suspicious pairs: the backdoor's shortcut is learnt first (the paper's second)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ubt.common.statistics import auroc
from ubt.defenses.ubt import OverfitSettings
from ubt.engine.context import Epoch, Output, StageContext
from ubt.engine.epochs import embedded_batches, model_to_train, train_epochs
from ubt.engine.poisoning import PoisonManifest
from ubt.methods.feeding import Indices
from ubt.methods.losses import clip_loss
from ubt.methods.training import Optimizer, batches
from ubt.models.clip import Clip, pair_similarities


def run(context: StageContext) -> Iterator[Epoch]:
    """Yield M_o epoch by epoch, with the suspects' `similarities[S]` float32 under it, and `similarities_before[S]`.

    The latter are under M_p. If all pairs are overfitted, there are `all_similarities[N]` under M_o too (figure 4).

    Continuing from an earlier epoch gives the same bits as running straight.

    Raises:
        StageFault: if the loss is not finite.
    """
    settings = context.settings(OverfitSettings)
    suspects = context.artifact("suspects").tensors["indices"].numpy()
    chosen = suspects if settings.overfit_data == "suspicious" else np.arange(len(context.pairs))
    clip = model_to_train(context, "poisoned", settings.overfit_micro_batch_size)
    # Batch norm keeps its statistics: a few hundred odd pairs would spoil them.
    optimizer = Optimizer(clip.net, settings.overfit_learning_rate, train_token_embedding=False)

    def losses(epoch: int) -> Iterator[Tensor]:
        size = settings.overfit_batch_size
        order = [chosen[batch] for batch in batches(len(chosen), size, context.seed, "overfit", "order", epoch)]
        for images, texts in embedded_batches(clip, context.pairs, context.pair_tokens, order):
            yield _loss(clip, images, texts, settings)

    before = _similarities(context, context.clip("poisoned"), suspects)

    def snapshot() -> Output:
        tensors = {"similarities": _similarities(context, clip, suspects), "similarities_before": before}
        if settings.overfit_data == "all":
            tensors["all_similarities"] = _similarities(context, clip, chosen)
        return Output(tensors=tensors, model=clip.state(), base="poisoned")

    yield from train_epochs(context, clip, optimizer, settings.overfit_epochs, losses, snapshot)


def diagnose(context: StageContext, output: Output, manifest: PoisonManifest) -> dict[str, float]:
    """Return how well similarity under M_o tells poison from the other suspects (AUROC; figure 3's claim).

    `auroc_before` is that under M_p, before overfitting; `auroc_all`, under M_o, over all of D where it is known.
    """
    if not manifest.known:
        return {}
    marks = manifest.marks(context.artifact("suspects").tensors["indices"])
    similarities = output.tensors["similarities"].numpy()
    found = {"auroc": auroc(similarities, marks)}
    found["auroc_before"] = auroc(output.tensors["similarities_before"].numpy(), marks)
    if "all_similarities" in output.tensors:
        every = output.tensors["all_similarities"]
        found["auroc_all"] = auroc(every.numpy(), manifest.marks(torch.arange(len(every))))
    for name, group in (("poison", marks), ("clean", ~marks)):
        if group.any():
            found[f"similarity_{name}"] = float(similarities[group].mean())
    return found


def _similarities(context: StageContext, clip: Clip, indices: Indices) -> Tensor:
    return pair_similarities(clip, context.pairs, context.pair_tokens, indices)


def _loss(clip: Clip, images: Tensor, texts: Tensor, settings: OverfitSettings) -> Tensor:
    if settings.overfit_loss == "contrastive":
        return clip_loss(images, texts, clip.logit_scale)
    return -(images * texts).sum(dim=1).mean()
