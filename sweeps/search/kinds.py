"""The table of designs: one row each. A new design is one file and one row here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Union

from pydantic import Field

from sweeps.search.adaptive import Adaptive
from sweeps.search.base import Search
from sweeps.search.comparison import ComparedDefense, Comparison
from sweeps.search.designs import Concat, Grid, LeaveOneOut, Listed, OneFactorAtATime, Pairs, Zipped

LAID_OUT: tuple[type[Search], ...] = (Grid, OneFactorAtATime, Pairs, Zipped, LeaveOneOut, Listed)
"""Designs that know their configurations beforehand."""
DESIGNS: tuple[type[Search], ...] = (Adaptive, *LAID_OUT, Concat, Comparison)

if TYPE_CHECKING:
    LaidOut = Search
    SearchConfig = Search
else:
    LaidOut = Annotated[Union[LAID_OUT], Field(discriminator="design")]  # noqa: UP007 — built from the table
    for nesting in (Concat, ComparedDefense, Comparison):
        nesting.model_rebuild(_types_namespace={"LaidOut": LaidOut})
    SearchConfig = Annotated[Union[DESIGNS], Field(discriminator="design")]  # noqa: UP007
