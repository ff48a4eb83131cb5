"""The table of attacks: one row each. A new attack is one file and one row here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Union

from pydantic import Field

from ubt.attacks.badnets import BadNets
from ubt.attacks.base import Attack
from ubt.attacks.blended import Blended
from ubt.attacks.sig import Sig

ATTACKS: tuple[type[Attack], ...] = (BadNets, Blended, Sig)

if TYPE_CHECKING:
    AttackConfig = Attack
else:
    AttackConfig = Annotated[Union[ATTACKS], Field(discriminator="kind")]  # noqa: UP007 — built from the table
