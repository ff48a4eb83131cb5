"""Points of a search's space as Optuna has them, and the configurations that they stand for."""

from __future__ import annotations

import itertools
import json
from functools import cached_property
from typing import TYPE_CHECKING

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from pydantic import JsonValue

from sweeps.search.base import differing, identity
from sweeps.search.proposals import Changes
from sweeps.search.space import Dimension, Range, contains, samples_of, space_size, tidy, values_of
from ubt.config.dotted_paths import JsonObject, get_path

if TYPE_CHECKING:
    from sweeps.search.base import Search

Point = dict[str, JsonValue]
"""Searched path → value, as Optuna has it."""

LAID_OUT = 10_000
"""Most points of a space that is laid out to see which are left."""


class Points:
    """A search's space to Optuna. Where a condition does not hold, several points are one configuration."""

    def __init__(self, search: Search, base: JsonObject) -> None:
        self._search = search
        self._base = base
        self.distributions = {path: _distribution(dimension) for path, dimension in search.space.items()}
        self.settled = {
            path: _only(search.space[path], one) for path, one in self.distributions.items() if one.single()
        }
        """Path → value, where there is one alone: Optuna asks no sampler for it."""

    @cached_property
    def base(self) -> Point | None:
        """Return the base as a point of the space; None if it lies outside."""
        values = {path: get_path(self._base, path) for path in self._search.space}
        inside = all(contains(dimension, values[path]) for path, dimension in self._search.space.items())
        return self._encoded(values) if inside else None

    def of(self, changes: Changes) -> Point | None:
        """Return a point that stands for a configuration; None if none does."""
        values = {path: changes.get(path, get_path(self._base, path)) for path in self._search.space}
        outside = [path for path, dimension in self._search.space.items() if not contains(dimension, values[path])]
        point = self._encoded({**values, **{path: samples_of(self._search.space[path])[0][0] for path in outside}})
        return point if self.name(point) == identity(changes) else None

    def changes(self, point: Point) -> Changes:
        """Return where a point differs from the base."""
        decoded = {path: _decoded(self._search.space[path], value) for path, value in point.items()}
        return differing(self._search.active(decoded, self._base), self._base)

    def name(self, point: Point) -> str:
        """Return the same text for every point that stands for a configuration."""
        return identity(self.changes(point))

    @cached_property
    def laid_out(self) -> dict[str, Point] | None:
        """Return every configuration, by its name, with the first point of it; None if there are too many points."""
        if space_size(self._search.space) > LAID_OUT:
            return None
        axes = [[(path, value) for value in values_of(path, axis)] for path, axis in self._search.space.items()]
        points: dict[str, Point] = {}
        for values in itertools.product(*axes):
            point = self._encoded(dict(values))
            points.setdefault(self.name(point), point)
        return points

    @cached_property
    def count(self) -> float:
        """Return how many configurations there are; at most so many, if there are too many to be laid out."""
        if self._search.when and self.laid_out is not None:
            return len(self.laid_out)
        return space_size(self._search.space)

    def _encoded(self, values: Changes) -> Point:
        return {path: _encoded(self.distributions[path], value) for path, value in values.items()}


def _distribution(dimension: Dimension) -> BaseDistribution:
    if not isinstance(dimension, Range):
        return CategoricalDistribution([_choice(value) for value in dimension])
    if dimension.whole:
        step = 1 if dimension.step is None else int(dimension.step)
        return IntDistribution(int(dimension.low), int(dimension.high), log=dimension.log, step=step)
    return FloatDistribution(dimension.low, dimension.high, log=dimension.log, step=dimension.step)


def _only(dimension: Dimension, distribution: BaseDistribution) -> JsonValue:
    """Return the value of a distribution that has one alone."""
    return dimension.low if isinstance(dimension, Range) else _encoded(distribution, dimension[0])


def _choice(value: JsonValue) -> str | int | float | bool | None:
    """Return a value as Optuna's storages take it: lists and mappings as JSON text."""
    return json.dumps(value, sort_keys=True) if isinstance(value, list | dict) else value


def _encoded(distribution: BaseDistribution, value: JsonValue) -> JsonValue:
    return _choice(value) if isinstance(distribution, CategoricalDistribution) else value


def _decoded(dimension: Dimension, value: JsonValue) -> JsonValue:
    if isinstance(dimension, Range):
        return tidy(value) if dimension.step and isinstance(value, int | float) else value
    if isinstance(value, str) and value[:1] in "[{":
        decoded: JsonValue = json.loads(value)
        return decoded
    return value
