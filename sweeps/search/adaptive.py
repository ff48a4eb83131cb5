"""The settings of Optuna's search; `sweeps.search.optuna_proposer` runs it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from sweeps.search.base import Search
from sweeps.search.space import Sampler, Space


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
    constrain_ca: bool = False
    """Tell the sampler which configurations lose more clean accuracy than `objectives.ca_floor`, so that it
    looks elsewhere."""
    lag: int | None = Field(default=None, ge=1)
    """Configuration i is chosen knowing the outcomes of those up to i − lag, and no others: so the search
    does not depend on which trial happens to end first. Default: twice the trials at a time, at least 4."""

    @field_validator("space")
    @classmethod
    def _something_to_search(cls, space: Space) -> Space:
        if not space:
            raise ValueError("an adaptive search needs a space")
        return space
