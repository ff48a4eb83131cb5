"""From a proposal to a trial: its configuration, assignment, stages and keys, and which record answers it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache

from pydantic import JsonValue

from sweeps.search.base import identity
from sweeps.search.proposals import Changes, Proposal
from sweeps.search.space import Range, values_of
from sweeps.study.config import StudyConfig
from ubt.data import DataSource, content_key
from ubt.defenses import Defense
from ubt.engine.graph import Node, Pipeline, PipelineBuilder
from ubt.engine.same_content import planned_files
from ubt.engine.spec import STAGES, stage_named
from ubt.trials.assignment import Assignment, PlannedFile
from ubt.trials.config import TrialConfig, VictimConfig
from ubt.trials.record import StageRecord, State, TrialRecord
from ubt.trials.stopping import StopRule


@dataclass(frozen=True)
class PlannedTrial:
    """One trial of a study."""

    assignment: Assignment
    pipeline: Pipeline

    @property
    def name(self) -> str:
        """Return the trial's name."""
        return self.assignment.trial

    def pieces(self, node: Node) -> list[str]:
        """Return the work of a stage as it is scheduled: a key for each epoch that trials share, and its own."""
        return [node.at(epoch).key for epoch in self._kept(node) if epoch < node.epochs] + [node.key]

    def done_pieces(self, node: Node, stage: StageRecord) -> list[str]:
        """Return those that are in the store, going by the stage's newest record."""
        if stage.complete:
            return self.pieces(node)
        reached = stage.epochs[-1].epoch if stage.epochs else 0
        # An epoch is published after it is reported, so only those before the newest are surely there.
        return [node.at(epoch).key for epoch in self._kept(node) if epoch < min(reached, node.epochs)]

    def is_answered_by(self, record: TrialRecord) -> bool:
        """Tell whether a record says all that running this trial would.

        It ended, not by a fault that says nothing of the configuration, and did the same work: the keys of its
        stages are others if the data, or the code of a stage, has changed since. One that failed before its first
        stage tells nothing of its work. A gate that would end now what it let pass, or the other way round, asks for
        the trial again, too: its stages are all in the store. So does a trial that was stopped by another
        `search.stopping`.
        """
        rule = self.assignment.stopping
        if record.pruned and (rule is None or not rule.is_of(record.pruned)):
            return False
        confirmed = all(map(self.assignment.gates.confirm, record.gates))
        same = record.config == self.assignment.recorded_config and record.seed == self.assignment.seed
        keys, done = [node.key for node in self.pipeline], [stage.key for stage in record.stages]
        same_work = done == keys if record.state is State.DONE else bool(done) and done == keys[: len(done)]
        return record.state.ended and not record.lost and same and same_work and confirmed

    def _kept(self, node: Node) -> tuple[int, ...]:
        return self.assignment.keep_epochs.get(node.spec.name, ()) if node.spec.epochs else ()


_BRANCHES = ("defense", "defense.kind")
"""Changes that may bring another number of epochs along."""

ContentKey = Callable[[DataSource], str]


class TrialPlanner:
    """Makes the trials of one study."""

    def __init__(self, study: StudyConfig, store: str, commit: str = "", content_key: ContentKey = content_key) -> None:
        self._study = study
        self._store = store
        self._commit = commit
        self._keep_epochs = shared_epochs(study)
        self._data_key = cache(content_key)
        self._builder = PipelineBuilder()
        self._files_of: dict[int, tuple[VictimConfig, tuple[PlannedFile, ...]]] = {}
        """By the number of a victim's object, which is kept, so that no other one gets its number."""

    def __call__(self, proposal: Proposal, position: int) -> PlannedTrial:
        """Return the trial of a proposal for the seed at `position`.

        Raises:
            UserError: if a change is not allowed, or the data cannot be read.
        """
        study = self._study
        trial, pipeline = self.built(proposal, position)
        assignment = Assignment(
            study=study.name,
            trial=trial_name(proposal, position, len(study.seeds)),
            number=proposal.number * len(study.seeds) + position,
            seed=study.seeds[position],
            config=trial.as_json(),
            changes=proposal.changes,
            label=proposal.label,
            asked_as=proposal.asked_as,
            data_key=self._data_key(trial.victim.data),
            files=self._files(trial),
            keys=tuple(node.key for node in pipeline),
            store=self._store,
            threads=study.resources.cpus_per_trial,
            gpus=study.resources.gpus_per_trial,
            keep_epochs=self._keep_epochs,
            gates=study.gates,
            stopping=self._stop_rule(proposal, pipeline),
            save_seconds=60 * study.resources.save_minutes,
            plugins=study.plugins,
            commit=self._commit,
        )
        return PlannedTrial(assignment, pipeline)

    def _stop_rule(self, proposal: Proposal, pipeline: Pipeline) -> StopRule | None:
        """Return by what a trial is stopped, yet without others to compare it with; None if it is not.

        It is looked at in the last stage that changes the defended model epoch by epoch. An earlier epoch of another
        trial is run to judge it in full, independent of others.
        """
        settings = self._study.search.stopping
        judged = [node.spec.name for node in pipeline if node.spec.evaluates_each_epoch]
        if settings is None or not judged or proposal.label.epoch_of:
            return None
        return StopRule(settings=settings, stage=judged[-1], choice=self._study.rule)

    def keep_epoch(self, stage: str, epoch: int) -> None:
        """Have trials that are planned from now on keep the model of a stage after an epoch: others go on from it."""
        kept = {*self._keep_epochs.get(stage, ()), epoch}
        self._keep_epochs = {**self._keep_epochs, stage: tuple(sorted(kept))}

    def _files(self, trial: TrialConfig) -> tuple[PlannedFile, ...]:
        """Return the files that a trial reads, looked at once for each victim."""
        victim = id(trial.victim)
        if victim not in self._files_of:
            self._files_of[victim] = (trial.victim, planned_files(trial, self._study.plugins))
        return self._files_of[victim][1]

    def pipeline(self, proposal: Proposal, position: int) -> Pipeline:
        """Return only the stages of that trial.

        Raises:
            UserError: as above.
        """
        return self.built(proposal, position)[1]

    def built(self, proposal: Proposal, position: int) -> tuple[TrialConfig, Pipeline]:
        """Return that trial's configuration and its stages.

        Raises:
            UserError: as above.
        """
        trial = self._study.trial(self._changes(proposal))
        data_key = self._data_key(trial.victim.data)
        return trial, self._builder.build(trial, self._study.seeds[position], data_key)

    def _changes(self, proposal: Proposal) -> Changes:
        """Return a proposal's changes; what only the table shows is not measured in a comparison's searches."""
        place = proposal.label.cell
        searching = self._study.metrics and place is not None and place.phase == "search"
        return {**proposal.changes, "metrics": []} if searching else proposal.changes


def shared_epochs(study: StudyConfig) -> dict[str, tuple[int, ...]]:
    """Return, for each stage that trials run for different numbers of epochs, the numbers they may end at."""
    defenses = _defenses_by_epochs(study)
    found: dict[str, tuple[int, ...]] = {}
    for stage, setting in _epoch_settings(defenses).items():
        ends = {getattr(defense, setting, None) for defense in defenses}
        ends.update(_searched_ends(study, f"defense.{setting}"))
        counts = sorted(end for end in ends if isinstance(end, int) and end > 0)
        if len(counts) > 1:
            found[stage] = tuple(counts)
    return found


def _epoch_settings(defenses: Iterable[Defense]) -> dict[str, str]:
    """Return, for each stage of some defenses whose epochs can be continued, the setting that counts them."""
    stages = {name: stage_named(name).epochs for defense in defenses for name in defense.stages}
    return {name: setting for name, setting in stages.items() if setting}


def _defenses_by_epochs(study: StudyConfig) -> list[Defense]:
    """Return the defenses that are known as far as they may differ in epochs: few, where configurations are many."""
    settings = {*_epoch_settings([study.defense]).values(), *(spec.epochs for spec in STAGES.loaded())}
    counted = {f"defense.{setting}" for setting in settings if setting}
    distinct: dict[str, Changes] = {}
    for changes in study.layout():
        telling = {path: value for path, value in changes.items() if path in counted or path in _BRANCHES}
        distinct.setdefault(identity(telling), telling)
    return [study.trial(changes).defense for changes in distinct.values()]


def _searched_ends(study: StudyConfig, path: str) -> list[JsonValue]:
    """Return the values that configurations chosen by results may have."""
    dimension = study.search.space.get(path)
    if not study.search.chosen_later or dimension is None:
        return []
    if isinstance(dimension, Range) and dimension.log:
        return []  # few of many: keeping every epoch would fill the store
    return values_of(path, dimension)


def trial_name(proposal: Proposal, position: int, replicates: int) -> str:
    """Return a name that sorts by number: t0007, or t0007-s1 if every configuration has several seeds."""
    return f"t{proposal.number:04d}" + (f"-s{position}" if replicates > 1 else "")
