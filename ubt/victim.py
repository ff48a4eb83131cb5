"""The victim as configured: data, model, attack, and how the backdoor is implanted. Loads no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from ubt.attacks import AttackConfig
from ubt.attacks.badnets import BadNets
from ubt.config import Config
from ubt.data.scenes import Scenes
from ubt.data.table import DataConfig


class ModelSettings(Config):
    """The clean model: an open_clip architecture, with weights or trained from nothing."""

    name: str = "tiny-rn"
    """A model name of open_clip (`RN50`, `ViT-B-32`, …) or `tiny-rn`, the embedded one."""
    pretrained: str | None = None
    """Tag of published weights (`openai`, `laion2b_s34b_b79k`, …); they are downloaded."""
    checkpoint: Path | None = None
    """Weights of the clean model in a file: .safetensors, or .pt loaded without unpickling code."""
    random_weights: bool = False
    """Use untrained weights: to try a pipeline, never to measure a defense."""
    precision: str = Field(default="auto", pattern="^(auto|float32|bfloat16)$")
    """`auto`: bfloat16 autocast in trials that are given GPUs, float32 in others."""

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        given = [bool(self.pretrained), bool(self.checkpoint), self.random_weights]
        if sum(given) > 1:
            raise ValueError("give one of `pretrained`, `checkpoint` and `random_weights`, not several")
        return self

    @property
    def trained_here(self) -> bool:
        """Tell whether the clean model is to be trained by the `pretrain` stage."""
        return not (self.pretrained or self.checkpoint or self.random_weights)


class PretrainSettings(Config):
    """How a clean model is trained from nothing: AdamW, warm-up, cosine decay."""

    epochs: int = Field(default=20, ge=1)
    """Passes over the pre-training pairs."""
    learning_rate: float = Field(default=2e-3, gt=0)
    """Highest learning rate, reached after the warm-up."""
    batch_size: int = Field(default=128, ge=2)
    """Pairs a step; each is told apart from the others of its batch."""
    weight_decay: float = Field(default=0.05, ge=0)
    """AdamW's; biases, gains and the token embedding are not decayed."""
    warmup_steps: int = Field(default=60, ge=0)
    """Steps of linear warm-up; a quarter of all steps at most."""


class ImplantSettings(Config):
    """How the attack is trained into the clean model: AdamW, cosine decay."""

    epochs: int = Field(default=6, ge=1)
    """Passes over the poisoned pairs."""
    learning_rate: float = Field(default=5e-4, gt=0)
    """Highest learning rate, reached after the warm-up."""
    batch_size: int = Field(default=128, ge=2)
    """Pairs a step; each is told apart from the others of its batch."""
    weight_decay: float = Field(default=0.05, ge=0)
    """AdamW's; biases, gains and the token embedding are not decayed."""
    warmup_steps: int = Field(default=20, ge=0)
    """Steps of linear warm-up; a quarter of all steps at most."""
    checkpoint: Path | None = None
    """Weights of a model that is already poisoned; nothing is trained then, and the data's pairs are taken
    as they are."""
    min_asr: float = Field(default=0.5, ge=0, le=1)
    """Least attack success rate of a victim worth defending; below it no defense stage is run."""


class VictimConfig(Config):
    """A backdoored CLIP model: where its parts come from."""

    data: DataConfig = Scenes()
    """Images and captions to train on, labelled images to judge by."""
    model: ModelSettings = ModelSettings()
    """The clean model."""
    pretrain: PretrainSettings = PretrainSettings()
    """How the clean model is trained, if it has no weights."""
    attack: AttackConfig = BadNets()
    """Trigger, target and how much is poisoned."""
    implant: ImplantSettings = ImplantSettings()
    """How the backdoor is trained in."""
