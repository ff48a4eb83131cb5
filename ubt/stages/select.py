"""Select the pairs to unlearn: the suspects that overfitting made most alike (the paper's third stage)."""

from __future__ import annotations

import torch
from torch import Tensor

from ubt.defenses.ubt import SelectSettings
from ubt.poisoning import Manifest
from ubt.stages.context import Output, StageContext


def run(context: StageContext) -> Output:
    """Return `indices[K]` int64 into D, the most telling first."""
    settings = context.settings(SelectSettings)
    suspects = context.artifact("suspects").tensors["indices"]
    ranks = _order(context, settings, len(suspects))
    return Output(tensors={"indices": suspects[ranks[: settings.unlearn_samples]].contiguous()})


def measure(context: StageContext, output: Output, manifest: Manifest) -> dict[str, float]:
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
