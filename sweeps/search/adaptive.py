"""Optuna's search as configured; `sweeps.search.optuna_proposer` runs it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import Field, field_validator

from sweeps.search.base import Search, Study
from sweeps.search.earlier import read_earlier
from sweeps.search.proposals import Proposal, Proposer
from sweeps.search.space import Space
from ubt.common.hashing import fingerprint
from ubt.config.dotted_paths import JsonObject
from ubt.trials.record import TrialRecord

Sampler = Literal["tpe", "nsgaii", "gp", "random", "qmc", "curves"]


class Adaptive(Search):
    """Optuna proposes configurations, learning from those before."""

    nestable: ClassVar[bool] = False

    design: Literal["optuna"] = "optuna"
    sampler: Sampler = "tpe"
    """Optuna's sampler; or `curves`, ours, which learns from every judged epoch and goes by gain for cost."""
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

    warm_start: tuple[str, ...] = ()
    """Folders of other studies' runs in the same space and with the same fixed settings. The sampler learns from their
    outcomes before the first trial, and does not ask for these configurations again; the base is run in any case."""

    @field_validator("space")
    @classmethod
    def _something_to_search(cls, space: Space) -> Space:
        if not space:
            raise ValueError("an adaptive search needs a space")
        return space

    def expand(self, base: JsonObject) -> list[Proposal]:
        """Return the one configuration that is known beforehand: the base, which is run first."""
        return [Proposal(0)]

    @property
    def chosen_later(self) -> int:
        """Number of configurations after the base."""
        return self.n_trials - 1

    def proposer(self, study: Study, journal: Path, known: Sequence[TrialRecord] = ()) -> Proposer:
        """Return Optuna's proposer. Its study is named after the run's folder, in which the journal lies.

        Raises:
            ValueError: if the lag has not been settled by `for_workers`.
            UserError: if the journal cannot be written, or what the search began with cannot be read.
        """
        from sweeps.search.optuna_proposer import OptunaProposer  # noqa: PLC0415 — designs need no Optuna

        if self.lag is None:
            raise ValueError("the lag of an adaptive search follows from the workers: see `for_workers`")
        # Another space is another Optuna study in the same journal: answers of one make no sense to the other.
        decisive = {"space", "when", "sampler", "sampler_seed"} | ({"warm_start"} if self.warm_start else set())
        space = fingerprint(self.model_dump(mode="json", include=decisive))
        name = f"{journal.parent.name}-{space[:8]}"
        asked = [(record.asked_as.partition("/"), record.changes) for record in known]
        recorded = {int(number): changes for (search, _, number), changes in asked if search == space[:8]}
        earlier = read_earlier(journal.parent, self.warm_start) if self.warm_start else None
        search = OptunaProposer(self, study.base, self.lag, journal, name, study.ca_floor, recorded, earlier or ())
        if self.sampler == "curves":
            from sweeps.search.curves.prices import Prices  # noqa: PLC0415 — as above

            search.prices = Prices(study)
        return search

    def for_workers(self, concurrent: int) -> Self:
        """Return the search with the lag that so many trials at a time want, unless it has one."""
        search = self if self.lag else self.model_copy(update={"lag": max(4, 2 * concurrent)})
        return search.with_stopping_lag(search.lag)

    def as_begun(self, before: JsonObject, extend: bool) -> Self:
        """Return the search with the lag of the machine that began it and, unless extended, the trials added since."""
        asked = before.get("n_trials")
        n_trials = max(self.n_trials, asked) if isinstance(asked, int) and not extend else self.n_trials
        search = super().as_begun(before, extend)
        return search.model_copy(update={"lag": self.lag or before.get("lag"), "n_trials": n_trials})

    def with_more_trials(self, more: int, before: JsonObject) -> Self:
        """Return the search with `more` trials than the run was last asked for."""
        asked = before.get("n_trials")
        return self.model_copy(update={"n_trials": (asked if isinstance(asked, int) else self.n_trials) + more})
