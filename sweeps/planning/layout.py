"""The trials of a study laid out before anything runs: their stages, and stand-ins for those that results decide."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice

from sweeps.planning.machine import machine_notes
from sweeps.planning.stand_ins import stand_ins
from sweeps.planning.trials import TrialPlanner, trial_name
from sweeps.study.config import StudyConfig
from ubt.artifacts.store import default_store
from ubt.common.errors import UserError
from ubt.common.hashing import fingerprint
from ubt.data import DataSource, content_key
from ubt.engine.graph import Pipeline
from ubt.trials.config import TrialConfig

Trial = tuple[TrialConfig, Pipeline]


@dataclass(frozen=True)
class Laid:
    """The trials of a study, and what a plan cannot show of them."""

    trials: dict[str, Trial] = field(default_factory=dict)
    """Name → trial, of those that are known."""
    imagined: list[Trial] = field(default_factory=list)
    """Stand-ins for those that results decide."""
    notes: list[str] = field(default_factory=list)

    @property
    def everything(self) -> Sequence[Trial]:
        """Return all of them."""
        return [*self.trials.values(), *self.imagined]

    @property
    def pipelines(self) -> list[Pipeline]:
        """Return the stages of all of them."""
        return [pipeline for _, pipeline in self.everything]


def lay_out(study: StudyConfig) -> Laid:
    """Return the stages of every trial, with stand-ins for those that results decide.

    Raises:
        UserError: if a configuration that is known beforehand is not allowed.
    """
    laid = Laid()

    def key_or_stand_in(data: DataSource) -> str:
        try:
            return content_key(data)
        except UserError as error:
            more = len(error.problems) - 1
            rest = f" (and {more:,} more problems, which `ubt run` lists)" if more else ""
            laid.notes.append(f"the data cannot be read here: {error.problems[0]!s}{rest}")
            return fingerprint(data.as_json())

    planner, seeds = TrialPlanner(study, study.store or default_store(), content_key=key_or_stand_in), len(study.seeds)
    known = ((one, position) for one in study.proposals() for position in range(study.replicates(one)))
    for proposal, position in islice(known, study.trials):  # a budget may end it before
        laid.trials[trial_name(proposal, position, seeds)] = planner.built(proposal, position)
    for proposal in stand_ins(study.search, study.base):
        with suppress(UserError):  # a combination that no search could run either
            laid.imagined.extend([planner.built(proposal, position) for position in range(seeds)])
    del laid.imagined[max(0, study.trials - len(laid.trials)) :]
    laid.notes.extend(_notes(study))
    return laid


def _notes(study: StudyConfig) -> list[str]:
    notes = []
    if study.victim.model.trained_here and not study.victim.data.has_pretrain:
        notes.append("the clean model is to be trained, and the data has no `pretrain` pairs: a sweep would refuse it")
    if budget := study.search.budget:
        which = ", whichever is reached first" if len(budget.limits) > 1 else ""
        notes.append(f"no trial is started once the budget is used up: {budget.text()}{which}")
    if study.race:
        most = f"this is the plan of all with {len(study.seeds)}"
        notes.append(f"seeds are raced: configurations run with {study.race.min}, those that compete with more; {most}")
    if study.search.stopping:
        notes.append(
            "trials may be stopped early (search.stopping): times and costs are those of running all to the end"
        )
    notes += [study.search.plan_note] if study.search.plan_note else []
    return [*notes, *machine_notes(study.resources)]


def planned_pipelines(study: StudyConfig) -> tuple[list[Pipeline], tuple[str, ...]]:
    """Return the stages of every trial that is known beforehand, and notes on what the plan does not show.

    Raises:
        UserError: if a configuration is not allowed.
    """
    laid = lay_out(study)
    return [pipeline for _, pipeline in laid.trials.values()], tuple(laid.notes)
