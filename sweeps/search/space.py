"""Search spaces: what each searched path may be."""

from __future__ import annotations

import json
import math
from typing import Annotated, Self

import numpy as np
from pydantic import AfterValidator, Discriminator, Field, JsonValue, Tag, model_validator

from ubt.config import Config
from ubt.config.shapes import PathKey

FieldPath = Annotated[str, PathKey("victim", "defense")]
"""The dotted path of a field that a search may change."""


MOST_TRIALS = 100_000
"""More configurations, or trials, than one study may have. They are counted before they are laid out."""


def check_count(count: float, what: str = "configurations") -> None:
    """Raise `ValueError` if there are more configurations than a study may have."""
    if count > MOST_TRIALS:
        number = f"{count:,.0f}" if count < 1e15 else f"{count:.1e}"
        raise ValueError(
            f"space: {number} {what} are more than the {MOST_TRIALS:,} that a study may have; "
            "give fewer values or longer steps, or let `design: optuna` choose among them"
        )


class Range(Config):
    """Numbers between two ends, both included."""

    low: int | float
    """Least value."""
    high: int | float
    """Greatest value. If both ends (and the step) are whole numbers, only whole numbers are searched."""
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


def _distinct(values: list[JsonValue]) -> list[JsonValue]:
    texts = [json.dumps(value, sort_keys=True) for value in values]
    repeated = [text for text in dict.fromkeys(texts) if texts.count(text) > 1]
    if repeated:
        raise ValueError(f"values must be distinct; given more than once: {', '.join(repeated)}")
    return values


Values = Annotated[list[JsonValue], Field(min_length=1), AfterValidator(_distinct)]
Dimension = Annotated[
    Annotated[Range, Tag("range")] | Annotated[Values, Tag("list")],
    Discriminator(lambda given: "range" if isinstance(given, dict | Range) else "list"),
]
Space = dict[FieldPath, Dimension]
"""Dotted path → what it may be: a list of values, or a range."""


def values_of(path: str, dimension: Dimension) -> list[JsonValue]:
    """Return the values of a dimension for designs that try all of them.

    Raises:
        ValueError: if there are infinitely many, or more than a study may have.
    """
    if not isinstance(dimension, Range):
        return list(dimension)
    if not math.isfinite(dimension.size):
        raise ValueError(f"{path}: a grid needs `step`, or a list of values")
    check_count(dimension.size, f"values of {path}")
    step = dimension.step or 1
    return [tidy(dimension.low + index * step) for index in range(int(dimension.size))]


def tidy(value: float) -> int | float:
    """Return a number without the dust that sums of binary fractions leave, as in 0.1 + 2 · 0.1."""
    return value if isinstance(value, int) else float(f"{value:.12g}")


def samples_of(dimension: Dimension) -> tuple[list[JsonValue], list[JsonValue]]:
    """Return what has to be valid for all of a dimension to be: its ends (or all values), and what lies between."""
    if not isinstance(dimension, Range):
        return list(dimension), []
    # No whole number, where any number is possible: not every field takes one.
    step = dimension.step or (1 if dimension.whole else (dimension.high - dimension.low) / math.pi)
    return [dimension.low, dimension.high], [tidy(dimension.low + step)]


def drawn_from(path: str, dimension: Dimension, rng: np.random.Generator) -> JsonValue:
    """Return a value of a dimension, each as likely as any other."""
    if not isinstance(dimension, Range) or math.isfinite(dimension.size):
        if isinstance(dimension, Range) and dimension.size > MOST_TRIALS:
            return int(rng.integers(int(dimension.low), int(dimension.high) + 1))
        values = values_of(path, dimension)
        return values[int(rng.integers(len(values)))]
    if dimension.log:
        return float(math.exp(rng.uniform(math.log(dimension.low), math.log(dimension.high))))
    return float(rng.uniform(dimension.low, dimension.high))


def contains(dimension: Dimension, value: JsonValue) -> bool:
    """Tell whether a value lies in a dimension."""
    if not isinstance(dimension, Range):
        return value in dimension
    if not isinstance(value, int | float) or not dimension.low <= value <= dimension.high:
        return False
    step = dimension.step or (1 if dimension.whole else None)
    steps = (value - dimension.low) / step if step else 0.0
    return math.isclose(steps, round(steps), abs_tol=1e-9)


def space_size(space: Space) -> float:
    """Return how many configurations there are; infinite for ranges without steps."""
    sizes = [d.size if isinstance(d, Range) else len(d) for d in space.values()]
    return math.prod(sizes)
