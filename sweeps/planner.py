"""From a proposal to a trial: its configuration, its assignment, its stages and their keys."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from pydantic import JsonValue

from sweeps.search.designs import Adaptive
from sweeps.search.proposer import Proposal
from sweeps.search.space import Range, values_of
from sweeps.session import PlannedTrial, trial_name
from sweeps.study import StudyConfig
from ubt.assignment import Assignment
from ubt.config import get_path
from ubt.config.paths import JsonObject
from ubt.data.base import DataSource
from ubt.graph import Pipeline, PipelineBuilder
from ubt.stages.table import STAGES
from ubt.trial import TrialConfig

ContentKey = Callable[[DataSource], str]


def _content_key(data: DataSource) -> str:
    return data.content_key()


class TrialPlanner:
    """Makes the trials of one study."""

    def __init__(
        self, study: StudyConfig, store: str, commit: str = "", content_key: ContentKey = _content_key
    ) -> None:
        self._study = study
        self._store = store
        self._commit = commit
        self._keep_epochs = shared_epochs(study)
        self._data_key = cache(content_key)
        self._builder = PipelineBuilder()

    def __call__(self, proposal: Proposal, position: int) -> PlannedTrial:
        """Return the trial of a proposal for the seed at `position`.

        Raises:
            UserError: if a change is not allowed, or the data cannot be read.
        """
        study = self._study
        trial, pipeline = self._build(proposal, position)
        assignment = Assignment(
            study=study.name,
            trial=trial_name(proposal, position, len(study.seeds)),
            number=proposal.number * len(study.seeds) + position,
            seed=study.seeds[position],
            config=trial.as_json(),
            changes=proposal.changes,
            data_key=self._data_key(trial.victim.data),
            store=self._store,
            threads=study.resources.cpus_per_trial,
            keep_epochs=self._keep_epochs,
            commit=self._commit,
        )
        return PlannedTrial(assignment, pipeline)

    def pipeline(self, proposal: Proposal, position: int) -> Pipeline:
        """Return only the stages of that trial.

        Raises:
            UserError: as above.
        """
        return self._build(proposal, position)[1]

    def _build(self, proposal: Proposal, position: int) -> tuple[TrialConfig, Pipeline]:
        trial = self._study.trial(proposal.changes)
        data_key = self._data_key(trial.victim.data)
        return trial, self._builder.build(trial, self._study.seeds[position], data_key)


def shared_epochs(study: StudyConfig) -> dict[str, tuple[int, ...]]:
    """Return, for each stage that trials run for different numbers of epochs, the numbers they may end at."""
    found: dict[str, tuple[int, ...]] = {}
    for spec in STAGES.values():
        ends = {end for end in _ends(study, f"defense.{spec.epochs}") if end > 0} if spec.epochs else set()
        if len(ends) > 1:
            found[spec.name] = tuple(sorted(ends))
    return found


def _ends(study: StudyConfig, path: str) -> set[int]:
    dimension = study.search.space.get(path)
    values: list[JsonValue] = [_value(study.base, path)]
    if not isinstance(study.search, Adaptive):
        values = [_value(study.trial(changes).as_json(), path) for changes in study.layout()]
    elif isinstance(dimension, Range) and dimension.log:
        return set()  # few of many: keeping every epoch would fill the store
    elif dimension is not None:
        values += values_of(path, dimension)
    return {value for value in values if isinstance(value, int)}


def _value(tree: JsonObject, path: str) -> JsonValue:
    """Return the value at a path; None where a trial has no such setting."""
    try:
        return get_path(tree, path)
    except KeyError:
        return None
