"""Models that need no training where the clean one M_c is at hand: M_c itself, and weights between M_p and M_c."""

from __future__ import annotations

import torch
from torch import Tensor

from ubt.defenses.reference import InterpolateSettings
from ubt.engine.context import Output, StageContext
from ubt.engine.poisoning import PoisonManifest
from ubt.models.clip import State


def reference(context: StageContext) -> Output:
    """Return the clean model as the defended one."""
    return Output(model=context.artifact("clean").weights, base="clean")


def interpolate(context: StageContext) -> Output:
    """Return the model of weights (1 − α) · M_p + α · M_c."""
    poisoned, clean = context.artifact("poisoned").weights, context.artifact("clean").weights
    return Output(model=between(poisoned, clean, context.settings(InterpolateSettings).clean_weight), base="poisoned")


def diagnose(context: StageContext, output: Output, manifest: PoisonManifest) -> dict[str, float]:
    """Return that no pair had to be clean: the clean model was."""
    return {"clean_pairs": 0.0}


def between(poisoned: State, clean: State, clean_weight: float) -> dict[str, Tensor]:
    """Return (1 − α) · `poisoned` + α · `clean`, tensor by tensor, computed in float32 and of the type it had.

    At α = 0 and 1 these are the bits of one of them. What is no fraction (batch norm counts its batches) is taken from
    the nearer of the two: a count between counts is none.
    """
    nearer = clean if clean_weight > 0.5 else poisoned
    return {
        name: (
            torch.lerp(value.float(), clean[name].float(), clean_weight).to(value.dtype)
            if value.is_floating_point()
            else nearer[name].clone()
        )
        for name, value in poisoned.items()
    }
