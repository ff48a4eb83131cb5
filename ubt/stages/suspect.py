"""Suspect the training pairs that are trusted least (the paper's first stage; its trust is the clean model's)."""

from __future__ import annotations

from ubt.defenses.ubt import SuspectSettings
from ubt.metrics import auroc
from ubt.poisoning import Manifest
from ubt.stages.context import Output, StageContext
from ubt.stages.trust import Trust


def run(context: StageContext) -> Output:
    """Return D_susp: `indices[S]` int64 into D, least trusted first: a ratio of the pairs looked at, at least 2."""
    trust = Trust.of(context.artifact("trust"))
    ratio = context.settings(SuspectSettings).suspicious_ratio
    count = max(2, round(ratio * len(trust.pairs)))
    return Output(tensors={"indices": trust.pairs[trust.ranked()[:count]]})


def measure(context: StageContext, output: Output, manifest: Manifest) -> dict[str, float]:
    """Return the share of poison that is suspected (recall) and of suspects that is poison (precision).

    And `auroc`: how well low trust tells poison from the other suspects, to compare with `overfit`.
    """
    indices = output.tensors["indices"]
    found = manifest.found_in(indices)
    if not manifest.known:
        return found
    trust = Trust.of(context.artifact("trust")).in_pairs(indices)
    return found | {"auroc": auroc(-trust.numpy(), manifest.marks(indices))}
