"""Several designs one after the other; what two of them share is run once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from sweeps.search.designs.base import Search
from sweeps.search.proposer import Changes

if TYPE_CHECKING:
    from sweeps.search.designs.table import LaidOut


class Concat(Search):
    """The configurations of each design in turn."""

    design: Literal["concat"] = "concat"
    designs: list[LaidOut] = Field(min_length=1)
    """Designs that lay their configurations out beforehand, each with its own space and conditions."""

    def layout(self) -> list[Changes]:
        """Return the configurations of each design in turn, its conditions applied."""
        return [changes for design in self.designs for changes in design.layout()]
