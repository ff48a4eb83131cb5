"""Configurations listed one by one."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, JsonValue

from sweeps.search.designs.base import Search
from sweeps.search.proposer import Changes


class Listed(Search):
    """The configurations that are listed, each a mapping of paths to values."""

    design: Literal["list"] = "list"
    trials: list[dict[str, JsonValue]] = Field(min_length=1)
    """One mapping of dotted paths to values for each configuration; {} is the base."""

    def layout(self) -> list[Changes]:
        """Return them as they stand."""
        return [dict(changes) for changes in self.trials]
