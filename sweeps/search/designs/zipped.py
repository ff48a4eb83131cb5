"""Paths that change together."""

from __future__ import annotations

from typing import Literal

from sweeps.search.designs.base import Search
from sweeps.search.proposer import Changes
from sweeps.search.space import values_of


class Zipped(Search):
    """The first values of all paths together, then the second, and so on."""

    design: Literal["zip"] = "zip"

    def layout(self) -> list[Changes]:
        """Return one configuration for each place in the lists; `ValueError` if they differ in length."""
        axes = {path: values_of(path, dimension) for path, dimension in self.space.items()}
        lengths = {path: len(values) for path, values in axes.items()}
        if len(set(lengths.values())) > 1:
            told = ", ".join(f"{path} has {length}" for path, length in lengths.items())
            raise ValueError(f"space: zip needs as many values for each path, but {told}")
        return [dict(zip(axes, row, strict=True)) for row in zip(*axes.values(), strict=True)]
