"""Every combination."""

from __future__ import annotations

import itertools
from typing import Literal

from sweeps.search.designs.base import Search
from sweeps.search.proposer import Changes
from sweeps.search.space import values_of


class Grid(Search):
    """Every combination of the space's values."""

    design: Literal["grid"] = "grid"

    def layout(self) -> list[Changes]:
        """Return the cross product; the last path varies fastest."""
        axes = [[(path, value) for value in values_of(path, dimension)] for path, dimension in self.space.items()]
        return [dict(combination) for combination in itertools.product(*axes)]
