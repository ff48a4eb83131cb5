"""Suspect the training pairs that are trusted least (the paper's first stage; its trust is the clean model's)."""

from __future__ import annotations

import torch

from ubt.defenses.ubt import SuspectSettings
from ubt.metrics import auroc
from ubt.poisoning import Manifest
from ubt.stages.context import Output, StageContext


def run(context: StageContext) -> Output:
    """Return D_susp: `indices[S]` int64 into D, least trusted first, S = max(2, ratio · N)."""
    trust = context.artifact("trust").tensors["trust"]
    ratio = context.settings(SuspectSettings).suspicious_ratio
    count = min(len(trust), max(2, round(ratio * len(trust))))
    return Output(tensors={"indices": torch.argsort(trust, stable=True)[:count].contiguous()})


def measure(context: StageContext, output: Output, manifest: Manifest) -> dict[str, float]:
    """Return the share of poison that is suspected (recall) and of suspects that is poison (precision).

    And `auroc`: how well low trust tells poison from the other suspects, to compare with `overfit`.
    """
    indices = output.tensors["indices"]
    found = manifest.found_in(indices)
    if not manifest.known:
        return found
    trust = context.artifact("trust").tensors["trust"][indices]
    return found | {"auroc": auroc(-trust.numpy(), manifest.marks(indices))}
