"""Which training pairs are suspicious, and which of them are unlearned (the paper's first and third stages)."""

from __future__ import annotations

import torch
from torch import Tensor

from ubt.common.statistics import auroc
from ubt.defenses.ubt import SelectSettings, SuspectSettings
from ubt.engine.context import Output, StageContext
from ubt.engine.poisoning import PoisonManifest
from ubt.stages.detectors import Trust


def suspect(context: StageContext) -> Output:
    """Return D_susp: `indices[S]` int64 into D, least trusted first: a ratio of the pairs looked at, at least 2."""
    trust = Trust.of(context.artifact("trust"))
    ratio = context.settings(SuspectSettings).suspicious_ratio
    count = max(2, round(ratio * len(trust.pairs)))
    return Output(tensors={"indices": trust.pairs[trust.ranked()[:count]]})


def diagnose_suspect(context: StageContext, output: Output, manifest: PoisonManifest) -> dict[str, float]:
    """Return the share of poison that is suspected (recall) and of suspects that is poison (precision).

    And `auroc`: how well low trust tells poison from the other suspects, to compare with `overfit`.
    """
    indices = output.tensors["indices"]
    found = manifest.found_in(indices)
    if not manifest.known:
        return found
    trust = Trust.of(context.artifact("trust")).in_pairs(indices)
    return found | {"auroc": auroc(-trust.numpy(), manifest.marks(indices))}


def select(context: StageContext) -> Output:
    """Return `indices[K]` int64 into D, the most telling first."""
    settings = context.settings(SelectSettings)
    suspects = context.artifact("suspects").tensors["indices"]
    ranks = _order(context, settings, len(suspects))
    return Output(tensors={"indices": suspects[ranks[: settings.unlearn_samples]].contiguous()})


def diagnose_select(context: StageContext, output: Output, manifest: PoisonManifest) -> dict[str, float]:
    """Return how many pairs are selected, the share of them that is poison, and the share of poison among them."""
    found = manifest.found_in(output.tensors["indices"])
    return {"purity" if name == "precision" else name: value for name, value in found.items()}


def _order(context: StageContext, settings: SelectSettings, suspects: int) -> Tensor:
    """Return the suspects' positions, `[S]` int64, in the order in which they are selected."""
    if settings.selection == "overfitted":
        similarities = context.artifact("overfitted").tensors["similarities"]
        return torch.argsort(similarities, descending=True, stable=True)
    if settings.selection == "clean":
        return torch.arange(suspects)  # `suspect` lists them least trusted first
    return torch.from_numpy(context.rng("random").permutation(suspects))
