"""A Latin hypercube: few configurations that are spread evenly over every setting of the space at once."""

from __future__ import annotations

import itertools
import math
from typing import Literal

import numpy as np
from pydantic import Field, JsonValue, field_validator

from sweeps.search.base import Search, identity
from sweeps.search.proposals import Changes
from sweeps.search.space import Dimension, Range, Space, check_count, space_size, tidy, values_of
from ubt.common.hashing import numpy_generator

_TRIES = 32
"""Hypercubes that are looked at for one without repeats, which short lists may bring about."""


class LatinHypercube(Search):
    """`n_trials` configurations, spread evenly over each setting's values (McKay et al., 1979).

    Each range is cut into as many equal parts as there are configurations, on its logarithm where it says so, and has
    one in each part; the values of a list, or of a range in steps, come up about equally often. The base is not among
    them unless it is drawn: `concat` with a `list` of `{}` puts it first.
    """

    design: Literal["latin_hypercube"] = "latin_hypercube"
    n_trials: int = Field(default=24, ge=1)
    """Configurations to run; a space that has no more is run whole."""
    sampler_seed: int = Field(default=0, ge=0)
    """Another seed is another design."""

    @field_validator("space")
    @classmethod
    def _something_to_search(cls, space: Space) -> Space:
        if not space:
            raise ValueError("a Latin hypercube needs a space")
        return space

    def layout(self) -> list[Changes]:
        """Return the configurations, all there are if they are no more than asked for.

        Of several hypercubes it is the first without repeats, or the one with the fewest.
        """
        check_count(self.n_trials)
        if space_size(self.space) <= self.n_trials:
            axes = [values_of(path, dimension) for path, dimension in self.space.items()]
            return [dict(zip(self.space, row, strict=True)) for row in itertools.product(*axes)]
        most: list[Changes] = []
        for attempt in range(_TRIES):
            drawn = {identity(changes): changes for changes in self._drawn(attempt)}
            most = max(most, list(drawn.values()), key=len)
            if len(most) == self.n_trials:
                break
        return most

    def _drawn(self, attempt: int) -> list[Changes]:
        from scipy.stats.qmc import LatinHypercube as Sampler  # noqa: PLC0415 — slow to import

        generator = numpy_generator(self.sampler_seed, "latin hypercube", attempt)
        columns = Sampler(len(self.space), rng=generator).random(self.n_trials).T
        placed = [_placed(dimension, column) for dimension, column in zip(self.space.values(), columns, strict=True)]
        return [dict(zip(self.space, row, strict=True)) for row in zip(*placed, strict=True)]


def _placed(dimension: Dimension, shares: np.ndarray) -> list[JsonValue]:
    """Return the values at some shares, in [0, 1), of a dimension's length."""
    if not isinstance(dimension, Range):
        return [dimension[int(share * len(dimension))] for share in shares]
    if dimension.log and dimension.whole:
        # Half a step on both sides, so that the ends have their parts as well.
        places = _geometric(dimension.low - 0.5, dimension.high + 0.5, shares)
        return [min(max(round(place), int(dimension.low)), int(dimension.high)) for place in places]
    if math.isfinite(dimension.size):
        step = dimension.step or 1
        return [tidy(dimension.low + int(share * dimension.size) * step) for share in shares]
    if dimension.log:
        places = _geometric(dimension.low, dimension.high, shares)
    else:
        places = [float(dimension.low + share * (dimension.high - dimension.low)) for share in shares]
    return [min(max(tidy(place), dimension.low), dimension.high) for place in places]


def _geometric(low: float, high: float, shares: np.ndarray) -> list[float]:
    return [float(low * (high / low) ** share) for share in shares]
