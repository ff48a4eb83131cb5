"""Suspect the training pairs that the clean model finds least alike (the paper's first stage)."""

from __future__ import annotations

import torch

from ubt.defenses.ubt import SuspectSettings
from ubt.poisoning import Manifest
from ubt.stages.context import Output, StageContext


def run(context: StageContext) -> Output:
    """Return D_susp: `indices[S]` int64 into D, least similar first, S = max(2, ratio · N)."""
    similarities = context.artifact("similarities").tensors["similarities"]
    ratio = context.settings(SuspectSettings).suspicious_ratio
    count = min(len(similarities), max(2, round(ratio * len(similarities))))
    return Output(tensors={"indices": torch.argsort(similarities, stable=True)[:count].contiguous()})


def measure(context: StageContext, output: Output, manifest: Manifest) -> dict[str, float]:
    """Return the share of poison that is suspected (recall) and of suspects that is poison (precision)."""
    marks = manifest.marks(output.tensors["indices"])
    if not manifest.known:
        return {"pairs": float(len(marks))}
    return {
        "pairs": float(len(marks)),
        "recall": float(marks.sum() / len(manifest.indices)),
        "precision": float(marks.mean()),
    }
