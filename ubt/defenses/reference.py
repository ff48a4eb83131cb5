"""What a defender with a clean model M_c can do without defending: deploy it, or meet the poisoned model half-way.

Readers of a table ask for these rows first: a defense that is given M_c has to be worth more than M_c is. Neither
trains anything, looks at a pair, or knows what is poisoned.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from ubt.config import Config
from ubt.defenses.base import Defense


class Reference(Defense):
    """Deploys the clean model M_c in place of the poisoned one: what D taught is given up, backdoor and all."""

    kind: Literal["reference"] = "reference"
    label: ClassVar[str] = "deploy M_c"
    stages: ClassVar[tuple[str, ...]] = ("reference",)


class InterpolateSettings(Config):
    """How far the weights are taken from the poisoned to the clean model."""

    clean_weight: float = Field(default=0.5, ge=0, le=1)
    """α: the weights are (1 − α) · M_p + α · M_c, statistics of batch norm included; 0 is M_p, 1 is M_c."""


class Interpolate(InterpolateSettings, Defense):
    """Weights on the line between the poisoned model and the clean one.

    Source: Arora et al., *Here's a Free Lunch: Sanitizing Backdoored Models with Model Merge*, Findings of ACL 2024,
    arXiv 2402.19334; the line itself: Wortsman et al., *Robust fine-tuning of zero-shot models*, CVPR 2022,
    arXiv 2109.01903.
    """

    kind: Literal["interpolate"] = "interpolate"
    label: ClassVar[str] = "interpolation"
    stages: ClassVar[tuple[str, ...]] = ("interpolate",)
