"""Anti-backdoor learning on CLIP: rank all pairs after brief training, isolate those learnt first, unlearn them.

Source: Li et al., NeurIPS 2021, arXiv 2110.11571: section 3.2 (isolation by the loss of early training, there a
classifier's) and equation 6 (gradient ascent on the isolated pairs' loss, whole captions, descent on the others).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ubt.common.statistics import auroc
from ubt.defenses.baselines import AscendSettings, IsolateSettings, RankSettings
from ubt.engine.context import Epoch, Output, StageContext
from ubt.engine.epochs import embed_pairs, embedded_batches, model_to_train, train_epochs
from ubt.engine.poisoning import PoisonManifest
from ubt.methods.losses import clip_loss, pair_losses
from ubt.methods.training import Optimizer, batches
from ubt.models.clip import Clip


def rank(context: StageContext) -> Iterator[Epoch]:
    """Yield `losses[N]` and `similarities[N]` of D's pairs under the model, epoch by epoch, all float32.

    Beside them, `similarities_before[N]` are those under the model that training starts from.

    Raises:
        StageFault: if the loss is not finite.
    """
    settings = context.settings(RankSettings)
    clip = model_to_train(context, settings.isolate_from, settings.isolate_micro_batch_size)
    optimizer = Optimizer(clip.net, settings.isolate_learning_rate, train_token_embedding=False)
    pairs, tokens = context.pairs, context.pair_tokens
    before = losses_and_similarities(context, context.clip(settings.isolate_from))["similarities"]

    def losses(epoch: int) -> Iterator[Tensor]:
        order = batches(len(pairs), settings.isolate_batch_size, context.seed, "rank", "order", epoch)
        for images, texts in embedded_batches(clip, pairs, tokens, order):
            yield clip_loss(images, texts, clip.logit_scale)

    def snapshot() -> Output:
        found = {**losses_and_similarities(context, clip), "similarities_before": before}
        return Output(tensors=found, model=clip.state(), base=settings.isolate_from)

    yield from train_epochs(context, clip, optimizer, settings.isolate_epochs, losses, snapshot)


def diagnose_rank(context: StageContext, output: Output, manifest: PoisonManifest) -> dict[str, float]:
    """Return how well low loss, high similarity and gained similarity tell poison from the rest (AUROC over D)."""
    losses, similarities, before = (
        output.tensors[name].numpy() for name in ("losses", "similarities", "similarities_before")
    )
    poisoned = np.isin(np.arange(len(losses)), manifest.indices)
    return {
        "auroc_loss": auroc(-losses, poisoned),
        "auroc_similarity": auroc(similarities, poisoned),
        "auroc_gain": auroc(similarities - before, poisoned),
    }


@torch.no_grad()
def losses_and_similarities(context: StageContext, clip: Clip) -> dict[str, Tensor]:
    """Return `losses[N]` and `similarities[N]` of D's pairs, each pair's loss against the others of a random batch.

    Random batches of equal size, give or take a pair: a pair's loss grows with the number of others.
    """
    order = context.rng("judge").permutation(len(context.pairs))
    found = {name: torch.empty(len(order)) for name in ("losses", "similarities")}
    for batch in np.array_split(order, max(1, len(order) // context.settings(RankSettings).isolate_batch_size)):
        images, texts = embed_pairs(clip, context.pairs, context.pair_tokens, batch)
        found["losses"][batch] = pair_losses(images, texts, clip.logit_scale).cpu()
        found["similarities"][batch] = (images * texts).sum(dim=1).cpu()
    return found


def isolate(context: StageContext) -> Output:
    """Return `indices[I]` int64 into D, the most telling first, I = max(2, ratio · N), and `similarities[N]` of D."""
    settings = context.settings(IsolateSettings)
    ranking = context.artifact("ranking").tensors
    signs = {
        "loss": -ranking["losses"],
        "similarity": ranking["similarities"],
        "gain": ranking["similarities"] - ranking["similarities_before"],
    }[settings.isolate_by]
    count = max(2, round(settings.isolation_ratio * len(signs)))
    indices = torch.argsort(signs, descending=True, stable=True)[:count].contiguous()
    return Output(tensors={"indices": indices, "similarities": ranking["similarities"]})


def diagnose_isolate(context: StageContext, output: Output, manifest: PoisonManifest) -> dict[str, float]:
    """Return the share of poison that is isolated (recall) and of the isolated that is poison (precision)."""
    return manifest.found_in(output.tensors["indices"])


def ascend(context: StageContext) -> Iterator[Epoch]:
    """Yield the unlearnt model epoch by epoch; an epoch is one pass over the isolated pairs.

    Raises:
        StageFault: if the loss is not finite.
    """
    settings = context.settings(AscendSettings)
    isolated = context.artifact("isolated").tensors["indices"].numpy()
    others = np.setdiff1d(np.arange(len(context.pairs)), isolated)
    clip = model_to_train(context, "poisoned", settings.ascend_micro_batch_size)
    optimizer = Optimizer(clip.net, settings.ascend_learning_rate, train_token_embedding=False)

    def losses(epoch: int) -> Iterator[Tensor]:
        rng = context.rng("others", epoch)
        size = settings.ascend_isolated_batch_size
        for up in batches(len(isolated), size, context.seed, "ascend", "order", epoch):
            down = rng.choice(others, min(settings.ascend_batch_size, len(others)), replace=False)
            batch = np.concatenate([isolated[up], down])
            images, texts = embed_pairs(clip, context.pairs, context.pair_tokens, batch)
            found = pair_losses(images, texts, clip.logit_scale)
            yield found[len(up) :].mean() - settings.ascend_weight * found[: len(up)].mean()

    def snapshot() -> Output:
        return Output(model=clip.state(), base="poisoned")

    yield from train_epochs(context, clip, optimizer, settings.ascend_epochs, losses, snapshot)


def diagnose_ascend(context: StageContext, output: Output, manifest: PoisonManifest) -> dict[str, float]:
    """Return how many pairs were unlearnt, and that no clean pairs were used."""
    return {"pairs": float(len(context.artifact("isolated").tensors["indices"])), "clean_pairs": 0.0}
