"""Isolate the pairs that were learnt fastest, of which ABL takes it that they are poisoned."""

from __future__ import annotations

import torch

from ubt.defenses.abl import IsolateSettings
from ubt.poisoning import Manifest
from ubt.stages.context import Output, StageContext


def run(context: StageContext) -> Output:
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


def measure(context: StageContext, output: Output, manifest: Manifest) -> dict[str, float]:
    """Return the share of poison that is isolated (recall) and of the isolated that is poison (precision)."""
    return manifest.found_in(output.tensors["indices"])
