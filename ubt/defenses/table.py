"""The table of defenses: one row each. A new defense is one file, its stages, and one row here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Union

from pydantic import Field

from ubt.defenses.abl import Abl
from ubt.defenses.base import Defense
from ubt.defenses.clean_tuning import CleanClip, Finetune, Par
from ubt.defenses.references import NoDefense, Oracle
from ubt.defenses.ubt import Ubt

DEFENSES: tuple[type[Defense], ...] = (NoDefense, Ubt, Finetune, CleanClip, Abl, Par, Oracle)

if TYPE_CHECKING:
    DefenseConfig = Defense
else:
    DefenseConfig = Annotated[Union[DEFENSES], Field(discriminator="kind")]  # noqa: UP007 — built from the table
