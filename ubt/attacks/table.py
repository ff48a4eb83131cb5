"""The table of attacks: one row each. A new attack is one file and one row here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Union

from pydantic import Field

from ubt.attacks.badclip import BadClip
from ubt.attacks.base import Attack
from ubt.attacks.overlays import Blended, BlendedText, BlendedTriangles, Sig
from ubt.attacks.patches import BadNets, BadNetsStripes, LabelConsistent, TrojVqa
from ubt.attacks.wanet import WaNet

ATTACKS: tuple[type[Attack], ...] = (
    BadNets,
    Blended,
    Sig,
    WaNet,
    TrojVqa,
    BadClip,
    LabelConsistent,
    BadNetsStripes,
    BlendedText,
    BlendedTriangles,
)

if TYPE_CHECKING:
    AttackConfig = Attack
else:
    AttackConfig = Annotated[Union[ATTACKS], Field(discriminator="kind")]  # noqa: UP007 — built from the table
