"""UBT: suspect, overfit, select, attribute, unlearn (Liu et al., arXiv 2409.19526).

One settings model per stage, beside each other so that a study file stays flat, and apart so that each
stage's key depends on its own settings only.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from ubt.common.errors import Problem, UserError
from ubt.config import Config, is_as
from ubt.defenses.base import Counts, Defense
from ubt.defenses.detectors import CleanDetector, DetectorConfig, ScreenSettings


class DetectSettings(ScreenSettings):
    """How far each training pair that is looked at is trusted."""

    detector: DetectorConfig = CleanDetector()
    """What pairs are trusted for: `clean` (similarity under the clean model, the paper's), `gain`, `poisoned`, `knn`,
    `lof`, or one that is installed beside; a name, or a `kind` with its settings."""


class SuspectSettings(Config):
    """Which training pairs are suspicious."""

    suspicious_ratio: float = Field(default=0.01, gt=0, le=1)
    """Fraction of the pairs looked at, those that the detector trusts least, that is suspicious."""


class OverfitSettings(Config):
    """How the poisoned model is made to overfit the backdoor."""

    overfit_epochs: int = Field(default=5, ge=0, le=1000)
    """Epochs of overfitting; 0 leaves the stage out."""
    overfit_learning_rate: float = Field(default=1e-4, gt=0)
    """Constant, so that an epoch is the same however many follow."""
    overfit_batch_size: int = Field(default=64, ge=2)
    """Pairs a step."""
    overfit_micro_batch_size: int | None = Field(default=None, ge=2, exclude_if=is_as(None))
    """Images, and captions, that gradients are computed for at a time, so that a large batch fits a small GPU; by
    default all of a step."""
    overfit_data: Literal["suspicious", "all"] = "suspicious"
    """Overfit the suspicious pairs, or all pairs (figure 4's ablation)."""
    overfit_loss: Literal["similarity", "contrastive"] = "similarity"
    """Raise the similarity of pairs alone, or against the others of a batch as CLIP's loss does."""


class SelectSettings(Config):
    """Which suspicious pairs are unlearned."""

    unlearn_samples: int = Field(default=64, ge=1)
    """How many pairs are unlearned (fewer if fewer are suspicious)."""
    selection: Literal["overfitted", "clean", "random"] = "overfitted"
    """Most similar under the overfitted model; least trusted by the detector, which is by default the clean model's
    similarity; or drawn at random."""


class AttributeSettings(Config):
    """How the importance of caption tokens is measured."""

    attribution: Literal["chefer", "gradient", "random"] = "chefer"
    """Attention relevance (Chefer et al., ICCV 2021), input × gradient of token embeddings, or random."""
    attribution_layers: Literal["all", "last"] = "all"
    """Blocks of the text tower that `chefer` takes relevance over: all of them, as its equations do (ours), or the last
    alone, as its authors' example for CLIP does by default."""

    newer = frozenset({"attribution_layers"})


class UnlearnSettings(Config):
    """How the selected pairs are unlearned."""

    token_threshold: float = Field(default=0.1, ge=0, le=1)
    """Caption tokens with a relevance above this are unlearned; a caption's relevance sums to 1."""
    unlearn_scope: Literal["token", "caption"] = "token"
    """Unlearn the tokens above the threshold, or whole captions."""
    unlearn_epochs: int = Field(default=10, ge=0, le=1000)
    """Passes over the selected pairs; 0 leaves the model as it is. Each is evaluated on validation."""
    unlearn_learning_rate: float = Field(default=2e-4, gt=0)
    """Constant, so that an epoch is the same however many follow."""
    unlearn_batch_size: int = Field(default=16, ge=1)
    """Selected pairs a step."""
    unlearn_loss: Literal["hinge", "ascent"] = "hinge"
    """`mean(relu(cos − margin))`, which stops at the margin, or plain `mean(cos)`, which never stops."""
    unlearn_margin: float = Field(default=0.0, ge=-1, le=1)
    """Similarity at which the hinge is satisfied."""
    unlearn_towers: Literal["both", "image"] = "image"
    """Train both towers, or the image tower alone: a trigger in the image is learnt and unlearnt there."""
    retain_loss: Literal["contrastive", "distill"] = "distill"
    """Hold trusted pairs by CLIP's loss, or by keeping their embeddings where the poisoned model has them."""
    retain_weight: float = Field(default=4.0, ge=0)
    """Weight of the loss that holds trusted pairs in place; 0 leaves it out."""
    retain_ratio: float = Field(default=0.5, gt=0, le=1)
    """Fraction of the pairs looked at, those that the detector trusts most, that may be held in place (suspicious
    ones never are). With 1, the poison that was not suspected is taught again while it is unlearnt."""
    retain_samples: int = Field(default=1024, ge=2)
    """How many of them are held in place, drawn at random (fewer if fewer are trusted). The poisoned model embeds each
    once, so that the cost of unlearning does not grow with the data."""
    retain_batch_size: int = Field(default=96, ge=2)
    """Retained pairs a step."""
    unlearn_micro_batch_size: int | None = Field(default=None, ge=2, exclude_if=is_as(None))
    """Images, and captions, that gradients are computed for at a time, so that a large batch fits a small GPU; by
    default all of a step."""


class Ubt(
    DetectSettings, SuspectSettings, OverfitSettings, SelectSettings, AttributeSettings, UnlearnSettings, Defense
):
    """UBT with all its knobs. Source: Liu et al., arXiv 2409.19526; departures are listed in docs/method.md."""

    kind: Literal["ubt"] = "ubt"
    label: ClassVar[str] = "UBT"

    @property
    def stages(self) -> tuple[str, ...]:
        """Return its stages: each detector is one of its own, so that the default one can be shared by all implants."""
        return (f"detect_{self.detector.kind}", "suspect", "overfit", "select", "attribute", "unlearn")

    def check_counts(self, counts: Counts) -> None:
        """Refuse ratios of which no pair, or no pair to hold in place, comes out.

        Raises:
            UserError: naming the ratio.
        """
        super().check_counts(counts)
        looked_at = max(2, round(self.screened_ratio * counts.pairs))
        suspects = max(2, round(self.suspicious_ratio * looked_at))
        if not round(self.suspicious_ratio * looked_at):
            message = f"is no pair of the {looked_at} that are looked at"
            advice = f"give {1 / looked_at:.2g} or more"
            raise UserError(Problem("defense.suspicious_ratio", message, self.suspicious_ratio, advice))
        held = min(max(2, round(self.retain_ratio * looked_at)), looked_at - suspects)
        if self.retain_weight and self.unlearn_epochs and held < 2:
            message = f"{suspects} of {looked_at} pairs are suspicious, which leaves {held} to hold in place"
            advice = "lower it, raise screened_ratio or retain_ratio, or hold nothing (retain_weight: 0)"
            raise UserError(Problem("defense.suspicious_ratio", message, self.suspicious_ratio, advice))
