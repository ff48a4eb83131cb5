"""Load a clean model: published weights, a checkpoint, or random ones to try a pipeline."""

from __future__ import annotations

from ubt.models.build import build_clip
from ubt.stages.context import Output, StageContext


def run(context: StageContext) -> Output:
    """Return the clean model's weights.

    Raises:
        UserError: if they cannot be fetched or do not fit.
    """
    clip = build_clip(context.workspace.victim.model, context.seed, context.workspace.device)
    return Output(model=clip.state())
