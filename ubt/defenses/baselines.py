"""Settings of the baselines: fine-tuning, CleanCLIP, PAR and ABL, and of what defenses are read against.

ABL: Backdoors are learnt first: early in training the poisoned pairs have the lowest loss. That holds for training from
nothing. A CLIP model that is fine-tuned knows the clean pairs already, and theirs is the lower loss; what is learnt
first then shows in how much similarity rises (`isolate_by: gain`, ours; the paper's rule is `loss`).
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from ubt.common.errors import Problem, UserError
from ubt.config import Config, is_as
from ubt.defenses.base import Counts, Defense


class FinetuneSettings(Config):
    """How the poisoned model is fine-tuned on clean pairs."""

    clean_pairs: int = Field(default=2000, ge=2)
    """Clean pairs that the defender has, drawn from the data's `pretrain` pairs; all of them if there are fewer."""
    finetune_epochs: int = Field(default=10, ge=0, le=1000)
    """Passes over the clean pairs; 0 leaves the model as it is. Each is evaluated on validation."""
    finetune_learning_rate: float = Field(default=3e-3, gt=0)
    """Learning rate of the first epoch."""
    finetune_learning_rate_decay: float = Field(default=0.7, gt=0, le=1)
    """Factor on the learning rate after each epoch. It counts epochs from the first, so that an epoch is the same
    however many follow."""
    finetune_batch_size: int = Field(default=64, ge=2)
    """Pairs a step; each is contrasted with the others of its batch."""
    finetune_micro_batch_size: int | None = Field(default=None, ge=2, exclude_if=is_as(None))
    """Images, and captions, that gradients are computed for at a time, so that a large batch fits a small GPU; by
    default all of a step. Batch norm that is trained sees so many at a time."""
    finetune_weight_decay: float = Field(default=0.05, ge=0)
    """AdamW's; biases and gains are not decayed."""
    finetune_batch_norm: Literal["frozen", "trained"] = "trained"
    """Keep the statistics of batch norm, or let them follow the clean pairs."""


class Finetune(FinetuneSettings, Defense):
    """CLIP's loss on clean pairs, from the poisoned model."""

    kind: Literal["finetune"] = "finetune"
    label: ClassVar[str] = "fine-tuning"
    stages: ClassVar[tuple[str, ...]] = ("finetune",)
    needs_clean_pairs: ClassVar[bool] = True


class CleanclipSettings(Config):
    """How the poisoned model is fine-tuned on clean pairs and their augmentations."""

    clean_pairs: int = Field(default=2000, ge=2)
    """Clean pairs that the defender has, drawn from the data's `pretrain` pairs; all of them if there are fewer."""
    cleanclip_epochs: int = Field(default=10, ge=0, le=1000)
    """Passes over the clean pairs; 0 leaves the model as it is. Each is evaluated on validation."""
    cleanclip_learning_rate: float = Field(default=3e-3, gt=0)
    """Learning rate of the first epoch."""
    cleanclip_learning_rate_decay: float = Field(default=0.7, gt=0, le=1)
    """Factor on the learning rate after each epoch. It counts epochs from the first, so that an epoch is the same
    however many follow."""
    cleanclip_batch_size: int = Field(default=64, ge=2)
    """Pairs a step; each is contrasted with the others of its batch."""
    cleanclip_micro_batch_size: int | None = Field(default=None, ge=2, exclude_if=is_as(None))
    """Images, and captions, that gradients are computed for at a time, so that a large batch fits a small GPU; by
    default all of a step. Batch norm that is trained sees so many at a time."""
    cleanclip_weight_decay: float = Field(default=0.05, ge=0)
    """AdamW's; biases and gains are not decayed."""
    cleanclip_batch_norm: Literal["frozen", "trained"] = "trained"
    """Keep the statistics of batch norm, or let them follow the clean pairs and their augmentations."""
    inmodal_weight: float = Field(default=1.0, ge=0)
    """λ: weight of the in-modal loss beside CLIP's; 0 is plain fine-tuning."""
    image_policy: Literal["auto", "rand", "trivial"] = "auto"
    """How images are augmented: AutoAugment, RandAugment or TrivialAugment."""
    caption_change_rate: float = Field(default=0.1, ge=0, le=1)
    """Fraction of a caption's words that are deleted or swapped."""


class CleanClip(CleanclipSettings, Defense):
    """CLIP's loss and an in-modal contrastive loss on clean pairs, from the poisoned model."""

    kind: Literal["cleanclip"] = "cleanclip"
    label: ClassVar[str] = "CleanCLIP"
    stages: ClassVar[tuple[str, ...]] = ("cleanclip",)
    needs_clean_pairs: ClassVar[bool] = True


class ParSettings(Config):
    """How the poisoned model is perturbed and recovers on clean pairs."""

    clean_pairs: int = Field(default=2000, ge=2)
    """Clean pairs that the defender has, drawn from the data's `pretrain` pairs; all of them if there are fewer."""
    par_epochs: int = Field(default=10, ge=0, le=1000)
    """Passes over the clean pairs; 0 leaves the model as it is. Each is evaluated on validation."""
    par_learning_rate: float = Field(default=3e-3, gt=0)
    """Learning rate of the first epoch."""
    par_learning_rate_decay: float = Field(default=0.7, gt=0, le=1)
    """Factor on the learning rate after each epoch: perturb fast, recover slowly. It counts epochs from the first,
    so that an epoch is the same however many follow."""
    par_batch_size: int = Field(default=64, ge=2)
    """Pairs a step; each is contrasted with the others of its batch."""
    par_micro_batch_size: int | None = Field(default=None, ge=2, exclude_if=is_as(None))
    """Images, and captions, that gradients are computed for at a time, so that a large batch fits a small GPU; by
    default all of a step. Batch norm that is trained sees so many at a time."""
    par_weight_decay: float = Field(default=1e-4, ge=0)
    """AdamW's; biases and gains are not decayed."""
    par_batch_norm: Literal["frozen", "trained"] = "trained"
    """Keep the statistics of batch norm, or let them follow the clean pairs."""
    par_threshold: float = Field(default=2.15, ge=0, le=4)
    """τ: squared distance from the poisoned model's unit embeddings up to which they are pushed away; 2 is a
    right angle."""
    par_weight: float = Field(default=0.5, ge=0)
    """Weight of each modality's distance beside CLIP's loss; 0 is plain fine-tuning."""
    par_image_policy: Literal["none", "auto", "rand", "trivial"] = "none"
    """How the clean images are augmented: not at all, AutoAugment, RandAugment or TrivialAugment. The authors augment;
    the model sees nothing else then, and at 32 pixels that costs more accuracy than it removes of the backdoor."""


class Par(ParSettings, Defense):
    """CLIP's loss on clean pairs, while embeddings are pushed away from where the poisoned model has them."""

    kind: Literal["par"] = "par"
    label: ClassVar[str] = "PAR"
    stages: ClassVar[tuple[str, ...]] = ("par",)
    needs_clean_pairs: ClassVar[bool] = True


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
    isolate_micro_batch_size: int | None = Field(default=None, ge=2, exclude_if=is_as(None))
    """Images, and captions, that gradients are computed for at a time, so that a large batch fits a small GPU; by
    default all of a step."""


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
    ascend_micro_batch_size: int | None = Field(default=None, ge=2, exclude_if=is_as(None))
    """Images, and captions, that gradients are computed for at a time, so that a large batch fits a small GPU; by
    default all of a step."""
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

    def check_counts(self, counts: Counts) -> None:
        """Refuse a ratio that isolates all pairs: none would be left to learn on.

        Raises:
            UserError: naming the ratio.
        """
        isolated = max(2, round(self.isolation_ratio * counts.pairs))
        if isolated >= counts.pairs:
            message = f"isolates {isolated} of {counts.pairs} pairs, so that none is left to learn on"
            raise UserError(Problem("defense.isolation_ratio", message, self.isolation_ratio))


class NoDefense(Defense):
    """Leaves the poisoned model alone; the row that every table is read against."""

    kind: Literal["none"] = "none"
    label: ClassVar[str] = "no defense"
    stages: ClassVar[tuple[str, ...]] = ()


class Oracle(Defense):
    """Trains the clean model by the implant's own recipe on the pairs that are not poisoned."""

    kind: Literal["oracle"] = "oracle"
    label: ClassVar[str] = "oracle"
    stages: ClassVar[tuple[str, ...]] = ("retrain",)
    knows_poison: ClassVar[bool] = True

    def check_counts(self, counts: Counts) -> None:
        """Refuse data of which all is poisoned: it trains on the rest.

        Raises:
            UserError: saying so.
        """
        left = counts.pairs - counts.poisoned
        if left < 2:
            message = f"{counts.poisoned} of {counts.pairs} pairs are poisoned: too few are left to train on"
            raise UserError(Problem("defense.kind", message, self.kind))
