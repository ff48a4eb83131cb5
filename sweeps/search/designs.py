"""Designs: configurations laid out beforehand. One row of the table each."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Annotated, Literal, Union

from pydantic import Field, JsonValue, field_validator

from sweeps.search.proposer import Changes, Outcome, Proposal
from sweeps.search.space import Sampler, Space, values_of
from ubt.config import Config


class Search(Config):
    """How a study looks for configurations."""

    space: Space = Field(default_factory=dict)
    """Dotted path → a list of values, or a range (`low`, `high`, `log`, `step`)."""

    def layout(self) -> list[Changes]:
        """Return the configurations in order; `ValueError` if they cannot be laid out."""
        raise NotImplementedError


class Grid(Search):
    """Every combination of the space's values."""

    design: Literal["grid"] = "grid"

    def layout(self) -> list[Changes]:
        """Return the cross product; the last path varies fastest."""
        axes = [[(path, value) for value in values_of(path, dimension)] for path, dimension in self.space.items()]
        return [dict(combination) for combination in itertools.product(*axes)]


class OneFactorAtATime(Search):
    """Each path varied alone, around the base."""

    design: Literal["ofat"] = "ofat"

    def layout(self) -> list[Changes]:
        """Return the base, then each value of each path by itself."""
        singles: list[Changes] = [
            {p: value} for p, dimension in self.space.items() for value in values_of(p, dimension)
        ]
        return [{}, *singles]


class Listed(Search):
    """The configurations that are listed, each a mapping of paths to values."""

    design: Literal["list"] = "list"
    trials: list[dict[str, JsonValue]] = Field(min_length=1)
    """One mapping of dotted paths to values for each configuration; {} is the base."""

    def layout(self) -> list[Changes]:
        """Return them as they stand."""
        return [dict(changes) for changes in self.trials]


class Adaptive(Search):
    """Optuna proposes configurations, learning from those before."""

    design: Literal["optuna"] = "optuna"
    sampler: Sampler = "tpe"
    """Optuna's sampler."""
    n_trials: int = Field(default=24, ge=1)
    """Distinct configurations to run, the base included."""
    startup_trials: int = Field(default=8, ge=1)
    """Configurations drawn at random before the sampler learns from results."""
    sampler_seed: int = Field(default=0, ge=0)
    """Another seed is another search."""
    lag: int | None = Field(default=None, ge=1)
    """Configuration i is chosen knowing the outcomes of those up to i − lag, and no others: so the search
    does not depend on which trial happens to end first. Default: twice the trials at a time, at least 4."""

    @field_validator("space")
    @classmethod
    def _something_to_search(cls, space: Space) -> Space:
        if not space:
            raise ValueError("an adaptive search needs a space")
        return space


DESIGNS: tuple[type[Search], ...] = (Adaptive, Grid, OneFactorAtATime, Listed)

if TYPE_CHECKING:
    SearchConfig = Search
else:
    SearchConfig = Annotated[Union[DESIGNS], Field(discriminator="design")]  # noqa: UP007 — built from the table


class DesignProposer:
    """Proposes a design's configurations one after the other; they depend on no outcome."""

    def __init__(self, layout: list[Changes]) -> None:
        self._proposals = [Proposal(number, changes) for number, changes in enumerate(layout)]
        self._next = 0

    @property
    def exhausted(self) -> bool:
        """Tell whether all have been proposed."""
        return self._next >= len(self._proposals)

    def propose(self) -> Proposal | None:
        """Return the next configuration of the design."""
        if self.exhausted:
            return None
        self._next += 1
        return self._proposals[self._next - 1]

    def tell(self, proposal: Proposal, outcome: Outcome) -> None:
        """A design learns nothing."""

    def finish(self) -> None:
        """Nothing is open."""
