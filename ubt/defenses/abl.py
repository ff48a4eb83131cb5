"""Anti-Backdoor Learning (Li et al., NeurIPS 2021, arXiv 2110.11571) on CLIP: isolate, then unlearn whole captions.

Backdoors are learnt first: early in training the poisoned pairs have the lowest loss. That holds for training from
nothing. A CLIP model that is fine-tuned knows the clean pairs already, and theirs is the lower loss; what is learnt
first then shows in how much similarity rises (`isolate_by: gain`, ours; the paper's rule is `loss`).
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from ubt.config import Config
from ubt.defenses.base import Defense


class RankSettings(Config):
    """How the model is trained whose losses give the poison away."""

    isolate_from: Literal["clean", "poisoned"] = "clean"
    """Train the clean model on the poisoned pairs anew and look early, or go on with the poisoned model."""
    isolate_epochs: int = Field(default=1, ge=0, le=1000)
    """Passes over the poisoned pairs before their losses are taken."""
    isolate_learning_rate: float = Field(default=1e-3, gt=0)
    """Constant, so that an epoch is the same however many follow."""
    isolate_batch_size: int = Field(default=64, ge=2)
    """Pairs a step; each is contrasted with the others of its batch."""


class IsolateSettings(Config):
    """Which pairs are isolated."""

    isolation_ratio: float = Field(default=0.05, gt=0, lt=1)
    """Fraction of the training pairs that is isolated."""
    isolate_by: Literal["loss", "similarity", "gain"] = "gain"
    """What isolated pairs have: the lowest loss, the highest similarity, or that which rose most in training."""


class AscendSettings(Config):
    """How the isolated pairs are unlearnt."""

    ascend_epochs: int = Field(default=10, ge=0, le=1000)
    """Passes over the isolated pairs; 0 leaves the model as it is. Each is evaluated on validation."""
    ascend_learning_rate: float = Field(default=1e-4, gt=0)
    """Constant, so that an epoch is the same however many follow."""
    ascend_batch_size: int = Field(default=64, ge=2)
    """Pairs a step that are not isolated."""
    ascend_isolated_batch_size: int = Field(default=16, ge=1)
    """Isolated pairs a step."""
    ascend_weight: float = Field(default=0.1, ge=0)
    """Weight of the isolated pairs' loss, up which the step goes. That loss has no upper bound: with a weight of 1
    the accuracy goes first."""


class Abl(RankSettings, IsolateSettings, AscendSettings, Defense):
    """Gradient ascent on the pairs of lowest loss, descent on the others. Needs no clean pairs."""

    kind: Literal["abl"] = "abl"
    label: ClassVar[str] = "ABL"
    stages: ClassVar[tuple[str, ...]] = ("rank", "isolate", "ascend")
