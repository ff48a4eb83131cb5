"""Optuna's samplers, by name, and one around them that draws what a search does not know yet.

Optuna's own repeat themselves on small spaces: TPE takes the best of 24 values of each setting by itself, a Gaussian
process the best point there is. What is known need not be asked again, so a draw of it is drawn anew with another seed,
and in the end evenly from what is left.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, QMCSampler, RandomSampler, TPESampler

from sweeps.search.optuna_points import Point, Points
from ubt.common.hashing import derive, numpy_generator

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

    from sweeps.search.adaptive import Adaptive
    from sweeps.search.curves.sampler import CurveSampler

_CANDIDATES = 24
"""Of so many TPE takes the best, by default; when drawn anew of fewer and fewer, for it would be the same one."""

SAMPLERS: dict[str, Callable[[Adaptive, int, int], BaseSampler]] = {
    "tpe": lambda search, seed, attempt: TPESampler(
        seed=seed, n_startup_trials=search.startup_trials, n_ei_candidates=max(1, _CANDIDATES >> attempt)
    ),
    "nsgaii": lambda search, seed, _: NSGAIISampler(seed=seed, population_size=search.startup_trials),
    "gp": lambda search, seed, _: GPSampler(seed=seed, n_startup_trials=search.startup_trials),
    "random": lambda search, seed, _: RandomSampler(seed=seed),
    "qmc": lambda search, seed, _: QMCSampler(
        scramble=True,  # without it every seed gives the same sequence
        seed=search.sampler_seed,  # a sequence needs one seed throughout
        independent_sampler=RandomSampler(seed=seed),  # for what comes before the sequence
    ),
}

_DRAWS, _DRAWS_OF = 16, {"gp": 2}
"""Draws of a sampler before one is made evenly; a Gaussian process finds the same maximum again, and takes long."""
_EVEN_DRAWS = 200
"""Even draws from a space that is too large to be laid out."""


def taken_into_account(sampler: str) -> dict[str, Any]:
    """Return what a trial of another run has to be marked with, so that a sampler learns from it.

    NSGA-II breeds from trials of a generation; others look at all.
    """
    return {NSGAIISampler._get_generation_key(): 0} if sampler == "nsgaii" else {}


@dataclass
class Drawn:
    """How many points were drawn."""

    all: int = 0
    known: int = 0
    """Of those, how many the search knew already."""


class DistinctSampler(BaseSampler):
    """Draws one point that is new, by the sampler of a search as long as that finds one."""

    def __init__(
        self,
        search: Adaptive,
        points: Points,
        known: Collection[str],
        seed: int,
        drawn: Drawn,
        curves: CurveSampler | None = None,
    ) -> None:
        self._curves = curves
        self._search = search
        self._points = points
        self._known = known
        self._seed = seed
        self._drawn = drawn
        self._space = {path: one for path, one in points.distributions.items() if path not in points.settled}

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return the whole space: only as a whole is a point new or known."""
        return self._space

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]) -> Point:
        """Return a point; a known one only if no other was found."""
        if self._curves is not None:
            self._drawn.all += 1
            return self._curves.draw(study, self._known) or self._draw(RandomSampler(self._seed), study, trial)
        for attempt in range(_DRAWS_OF.get(self._search.sampler, _DRAWS)):
            seed = derive(self._seed, "again", attempt) % 2**32 if attempt else self._seed
            point = self._draw(SAMPLERS[self._search.sampler](self._search, seed, attempt), study, trial)
            if self._is_new(point):
                return point
        return self._left(study, trial) or point

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:  # noqa: ANN401 — as Optuna has it
        """Draw a value at random. Optuna asks so for what is outside the space; there is nothing."""
        return RandomSampler(self._seed).sample_independent(study, trial, param_name, param_distribution)

    def _draw(self, sampler: BaseSampler, study: Study, trial: FrozenTrial) -> Point:
        """Return what a sampler draws when it is asked as Optuna asks it."""
        relative = sampler.sample_relative(study, trial, sampler.infer_relative_search_space(study, trial))
        self._drawn.all += 1
        drawn = {
            path: relative[path] if path in relative else sampler.sample_independent(study, trial, path, distribution)
            for path, distribution in self._space.items()
        }
        return {**drawn, **self._points.settled}

    def _is_new(self, point: Point) -> bool:
        new = self._points.name(point) not in self._known
        self._drawn.known += not new
        return new

    def _left(self, study: Study, trial: FrozenTrial) -> Point | None:
        """Return a point of those that are left, each as likely as another; None if none is, or none was found."""
        if self._points.laid_out is None:
            seeds = (derive(self._seed, "evenly", attempt) % 2**32 for attempt in range(_EVEN_DRAWS))
            return next((p for s in seeds if self._is_new(p := self._draw(RandomSampler(s), study, trial))), None)
        left = [point for name, point in self._points.laid_out.items() if name not in self._known]
        if not left:
            return None
        return left[numpy_generator(self._seed, "evenly").integers(len(left))]
