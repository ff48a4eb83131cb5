"""What zero-shot classification of one split shows: clean accuracy, attack success, and the counts behind them."""

from __future__ import annotations

from typing import NamedTuple, Self

from pydantic import model_validator

from ubt.config import Config


class AttackRate(NamedTuple):
    """An attack success rate and the ends of its Wilson 95 % interval."""

    rate: float
    low: float
    high: float


class PerClass(Config):
    """Each class of a split by itself, as counts of images, in the order of the record's `classes`."""

    images: tuple[int, ...]
    """Clean images of the class."""
    correct: tuple[int, ...]
    """Of those, how many are classified rightly."""
    triggered: tuple[int, ...] | None = None
    """Triggered images of the class, none of the target's own; null if no attack is known."""
    hits: tuple[int, ...] | None = None
    """Of those, how many are classified as the target."""


class Rates(Config):
    """What zero-shot classification on one split shows. Rates are fractions in [0, 1].

    Without a known attack nothing can be stamped: what is measured on triggered images is None then, all of it.
    """

    split: str = ""
    """`val` or `test`; empty in artifacts of before it was written down."""
    subset: str = "all"
    """Which images of the split: `all`, or the name of a part of it."""
    ca: float
    """Clean accuracy: top-1 on clean images."""
    ca_images: int
    """Clean images that `ca` and `ca_top5` are of."""
    asr: float | None = None
    """Attack success rate: of triggered images of other classes, those classified as the target."""
    asr_images: int | None = None
    """Triggered images that `asr` and `triggered_accuracy` are of."""
    ca_low: float
    """Lower end of the Wilson 95 % interval of `ca`."""
    ca_high: float
    """Its upper end."""
    asr_low: float | None = None
    """Lower end of the Wilson 95 % interval of `asr`."""
    asr_high: float | None = None
    """Its upper end."""
    triggered_accuracy: float | None = None
    """Top-1 accuracy on those triggered images under their true labels."""
    ca_top5: float | None = None
    """Top-5 accuracy on clean images (of all classes if there are fewer); null in records of before it was measured."""
    per_class: PerClass | None = None
    """The counts behind `ca` and `asr`, class by class; null after epochs, and in records of before it was measured."""

    @model_validator(mode="after")
    def _all_of_the_attack_or_nothing(self) -> Self:
        triggered = (self.asr, self.asr_images, self.asr_low, self.asr_high, self.triggered_accuracy)
        if None in triggered and any(value is not None for value in triggered):
            raise ValueError("what is measured on triggered images is measured together: some of it is missing")
        return self

    def __str__(self) -> str:
        """Return both rates in short: `ASR 0.036 CA 0.812`, `ASR – CA 0.812`; of a part of the images, of how many."""
        found = f"ASR {'–' if self.asr is None else f'{self.asr:.3f}'} CA {self.ca:.3f}"
        return f"{found} (of {self.ca_images:,} images)" if self.provisional else found

    @property
    def attacked(self) -> AttackRate | None:
        """Return the attack success rate with its interval; None if no attack is known."""
        if self.asr is None or self.asr_low is None or self.asr_high is None:
            return None
        return AttackRate(self.asr, self.asr_low, self.asr_high)

    @property
    def provisional(self) -> bool:
        """Return whether these are rates of a part of the split, good enough to stop early and not to report."""
        return self.subset != "all"
