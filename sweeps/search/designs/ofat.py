"""One factor at a time."""

from __future__ import annotations

from typing import Literal

from sweeps.search.designs.base import Search
from sweeps.search.proposer import Changes
from sweeps.search.space import values_of


class OneFactorAtATime(Search):
    """Each path varied alone, around the base."""

    design: Literal["ofat"] = "ofat"

    def layout(self) -> list[Changes]:
        """Return the base, then each value of each path by itself."""
        singles: list[Changes] = [
            {p: value} for p, dimension in self.space.items() for value in values_of(p, dimension)
        ]
        return [{}, *singles]
