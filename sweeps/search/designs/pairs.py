"""Two factors at a time: interactions, without the price of a grid."""

from __future__ import annotations

import itertools
from typing import Literal

from pydantic import model_validator

from sweeps.search.designs.base import Search
from sweeps.search.proposer import Changes
from sweeps.search.space import values_of


class Pairs(Search):
    """Every combination of the values of every two paths, the others at the base."""

    design: Literal["pairs"] = "pairs"

    @model_validator(mode="after")
    def _at_least_two(self) -> Pairs:
        if len(self.space) < 2:
            raise ValueError("pairs need a space of at least two paths")
        return self

    def layout(self) -> list[Changes]:
        """Return the base, then the grid of each two paths."""
        axes = {path: values_of(path, dimension) for path, dimension in self.space.items()}
        crossed: list[Changes] = [
            {one: first, other: second}
            for one, other in itertools.combinations(axes, 2)
            for first, second in itertools.product(axes[one], axes[other])
        ]
        return [{}, *crossed]
