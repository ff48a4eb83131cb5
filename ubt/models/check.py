"""Try a victim's weights before a sweep starts, so that a mistake is met once and not in every worker."""

from __future__ import annotations

import torch

from ubt.models.build import build_clip, load_weights
from ubt.victim import VictimConfig


def check_weights(victim: VictimConfig) -> None:
    """Build the model and load what the study names.

    Raises:
        UserError: if weights cannot be fetched or read, or do not fit the model.
    """
    clip = build_clip(victim.model, seed=0, device=torch.device("cpu"))
    if victim.implant.checkpoint:
        load_weights(clip.net, victim.implant.checkpoint)
