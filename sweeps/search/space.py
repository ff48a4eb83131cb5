"""Search spaces: what each searched path may be."""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import Field, JsonValue, model_validator

from ubt.config import Config


class Range(Config):
    """Numbers between two ends, both included."""

    low: int | float
    high: int | float
    log: bool = False
    """Search the logarithm."""
    step: int | float | None = Field(default=None, gt=0)
    """Distance of neighbouring values; every number is possible without it."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low >= self.high:
            raise ValueError("`low` must be less than `high`")
        if self.log and self.low <= 0:
            raise ValueError("a logarithm needs a `low` above 0")
        if self.log and self.step:
            raise ValueError("`log` and `step` exclude each other")
        return self

    @property
    def whole(self) -> bool:
        """Tell whether only whole numbers are meant: both ends and the step are."""
        return all(isinstance(end, int) for end in (self.low, self.high, self.step or 0))

    @property
    def size(self) -> float:
        """Return how many values there are."""
        if self.whole:
            return (self.high - self.low) // (self.step or 1) + 1
        return math.floor((self.high - self.low) / self.step + 1e-9) + 1 if self.step else math.inf


Values = Annotated[list[JsonValue], Field(min_length=1)]
Dimension = Range | Values
Space = dict[str, Dimension]
"""Dotted path → what it may be: a list of values, or a range."""


def values_of(path: str, dimension: Dimension) -> list[JsonValue]:
    """Return the values of a dimension for designs that lay all of them out.

    Raises:
        ValueError: if there are infinitely many.
    """
    if not isinstance(dimension, Range):
        return list(dimension)
    if not math.isfinite(dimension.size):
        raise ValueError(f"{path}: a grid needs `step`, or a list of values")
    step = dimension.step or 1
    return [dimension.low + index * step for index in range(int(dimension.size))]


def ends_of(dimension: Dimension) -> list[JsonValue]:
    """Return the values that have to be valid for all of a dimension to be."""
    return [dimension.low, dimension.high] if isinstance(dimension, Range) else list(dimension)


def contains(dimension: Dimension, value: JsonValue) -> bool:
    """Tell whether a value lies in a dimension."""
    if not isinstance(dimension, Range):
        return value in dimension
    return isinstance(value, int | float) and dimension.low <= value <= dimension.high


def space_size(space: Space) -> float:
    """Return how many configurations there are; infinite for ranges without steps."""
    sizes = [d.size if isinstance(d, Range) else len(d) for d in space.values()]
    return math.prod(sizes)


Sampler = Literal["tpe", "nsgaii", "gp", "random", "qmc"]
