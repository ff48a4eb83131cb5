"""The table of defenses: one row each. A new defense is one file, its stages, and one row here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Union

from pydantic import Field

from ubt.defenses.base import Defense
from ubt.defenses.none import NoDefense
from ubt.defenses.ubt import Ubt

DEFENSES: tuple[type[Defense], ...] = (NoDefense, Ubt)

if TYPE_CHECKING:
    DefenseConfig = Defense
else:
    DefenseConfig = Annotated[Union[DEFENSES], Field(discriminator="kind")]  # noqa: UP007 — built from the table
