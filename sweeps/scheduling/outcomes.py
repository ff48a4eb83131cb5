"""What became of trials: the outcomes that a search gets, victims that failed, and numbers that configurations keep."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from statistics import fmean
from typing import Protocol

from pydantic import JsonValue

from sweeps.planning.trials import PlannedTrial
from sweeps.scheduling.stopping import Stops
from sweeps.search.proposals import Outcome, Proposal, Proposer
from ubt.common.choice import CA_FLOOR, Candidate, RuleName, Seen, choose, mean_candidate, nearest
from ubt.common.errors import WeakImplant
from ubt.trials.budget import ended_at
from ubt.trials.failures import Failure
from ubt.trials.labels import TrialLabel
from ubt.trials.record import Attempt, StageRecord, State, TrialRecord


class Listener(Protocol):
    """Takes note of what happens: progress, tracking."""

    def updated(self, record: TrialRecord) -> None:
        """Take note of a trial's newest record; must return at once."""

    def answered(self, record: TrialRecord) -> None:
        """Take note of a trial that need not run, for it has this record from before."""


def outcome_of(record: TrialRecord, rule: RuleName = "lowest_asr") -> Outcome:
    """Return a trial's objectives; none if it failed, or what the rule looks at (attack, selected pairs) is missing."""
    if record.state is not State.DONE or record.val is None:
        return Outcome(None, ruled_out=record.failed_by is Failure.METHOD or record.state is State.PRUNED)
    seen = Seen.of(record.observed)
    alike = seen.alike if seen else None
    wanted = record.val.asr if rule == "lowest_asr" else alike
    if wanted is None:
        return Outcome(None)
    ca_lost = record.poisoned_val.ca - record.val.ca if record.poisoned_val else None
    held_lost = seen.held_lost if seen and rule == "trigger_free" else None
    return Outcome((wanted, record.val.ca), ca_lost, held_lost)


def mean_outcome(outcomes: Sequence[Outcome]) -> Outcome:
    """Return the mean over seeds: a failure if one of them failed."""
    values = [outcome.values for outcome in outcomes]
    if any(value is None for value in values):
        return Outcome(None, ruled_out=any(outcome.ruled_out for outcome in outcomes))
    means = tuple(fmean(column) for column in zip(*(v for v in values if v is not None), strict=True))
    return Outcome(means, _mean(one.ca_lost for one in outcomes), _mean(one.held_lost for one in outcomes))


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def outcome_over_seeds(records: Sequence[TrialRecord], rule: RuleName, ca_floor: float) -> Outcome:
    """Return the outcome of a configuration's trials, one a seed: means, or a failure if one of them failed.

    If some were stopped early, these are the means after the epoch that the rule of choice would take, of those that
    every seed has measured: what the configuration gives with as many epochs.
    """
    ends = {record.state for record in records}
    epochs = _epochs(records, rule) if ends <= {State.PRUNED, State.DONE} else ()
    if State.PRUNED in ends and ends <= {State.PRUNED, State.DONE} and (best := _best_epoch(records, rule, ca_floor)):
        return replace(best, epochs=epochs)
    return replace(mean_outcome([outcome_of(record, rule) for record in records]), epochs=epochs)


def _epochs(records: Sequence[TrialRecord], rule: RuleName) -> tuple[tuple[int, float, float], ...]:
    """Return the means after each epoch that every trial has measured, of the last stage whose epochs are judged."""
    stage = next((name for name, epoch in reversed(records[0].epochs) if epoch.val), "") if records else ""
    found = [_candidates(record, stage) for record in records]
    common = sorted(set.intersection(*(set(epochs) for epochs in found))) if found else []
    means = [mean_candidate([epochs[number] for epochs in found]) for number in common]
    values = [(one.asr if rule == "lowest_asr" else one.seen.alike if one.seen else None, one.ca) for one in means]
    return tuple((number, first, ca) for number, (first, ca) in zip(common, values, strict=True) if first is not None)


def _best_epoch(records: Sequence[TrialRecord], rule: RuleName, ca_floor: float) -> Outcome | None:
    """Return the means after the best epoch that every trial has measured; None if there is none."""
    stage = next((record.pruned.stage for record in records if record.pruned), "")
    found = [_candidates(record, stage) for record in records]
    common = sorted(set.intersection(*(set(epochs) for epochs in found)))
    means = [mean_candidate([epochs[number] for epochs in found]) for number in common]
    best = choose(means, ca_floor, rule) or nearest(means, rule)
    if best is None:
        return None
    seen = best.seen if rule == "trigger_free" else None
    first = seen.alike if seen else best.asr
    return None if first is None else Outcome((first, best.ca), best.ca_lost, seen.held_lost if seen else None)


def _candidates(record: TrialRecord, stage: str) -> dict[int, Candidate]:
    """Return what a choice looks at after each judged epoch of a stage, by epoch, which is also its last tie-break."""
    if record.poisoned_val is None:
        return {}
    before, rates = record.poisoned_val.ca, [(one, one.val) for name, one in record.epochs if name == stage]
    return {
        one.epoch: Candidate(val.asr, val.ca, before - val.ca, one.epoch, Seen.of(one.observed))
        for one, val in rates
        if val is not None
    }


class Replicated:
    """The replicates of each proposal: the search is given its outcome once all of them have ended."""

    def __init__(self, proposer: Proposer, rule: RuleName, ca_floor: float = CA_FLOOR) -> None:
        self._proposer = proposer
        self._rule = rule
        self._ca_floor = ca_floor
        self._proposal_of: dict[str, Proposal] = {}
        self._open: dict[tuple[int, int], dict[str, TrialRecord | None]] = {}
        self.stops = Stops()
        """By what each trial is stopped early."""

    def begin(self, proposal: Proposal, trials: Sequence[PlannedTrial]) -> None:
        """Take note of the trials of a proposal."""
        names = [trial.name for trial in trials]
        self._proposal_of.update(dict.fromkeys(names, proposal))
        self._open[proposal.number, proposal.first] = dict.fromkeys(names)
        self.stops.begin(trials)

    def ended(self, record: TrialRecord) -> None:
        """Take note of a trial's end. The outcome is the mean; a failure if one failed."""
        proposal = self._proposal_of[record.trial]
        self.stops.ended(record)
        records = self._open[proposal.number, proposal.first]
        records[record.trial] = record
        known = [one for one in records.values() if one is not None]
        if len(known) == len(records):
            self._proposer.tell(proposal, outcome_over_seeds(known, self._rule, self._ca_floor))
            del self._open[proposal.number, proposal.first]


def end_of(record: TrialRecord) -> str:
    """Return what ended a trial's run, and how that is called."""
    return record.reason if record.reason.startswith(record.fault) else f"{record.fault}: {record.reason}"


def attempts_before(record: TrialRecord) -> tuple[Attempt, ...]:
    """Return the runs of a trial that a resume runs again; the last one ended with the last that is known of it."""
    ended_by = end_of(record) if record.state.ended else record.reason or "interrupted"
    return _ended(record.attempts, ended_by, ended_at(record))


def attempts_after(before: Sequence[Attempt], record: TrialRecord) -> tuple[Attempt, ...]:
    """Return a trial's runs, the newest of which has ended just now and is followed by another."""
    return _ended(
        (*before, *record.attempts[-1:]), end_of(record), datetime.now(UTC).isoformat(timespec="milliseconds")
    )


def _ended(attempts: Sequence[Attempt], ended_by: str, at: str) -> tuple[Attempt, ...]:
    """Return a trial's runs with what ended the last of them, unless that is written there."""
    if not attempts or attempts[-1].ended_by:
        return tuple(attempts)
    return (*attempts[:-1], attempts[-1].model_copy(update={"ended_by": ended_by, "ended_at": at}))


class FailedVictims:
    """Stages that it makes no sense to go on from, each with the record of the trial that found out.

    Most are a victim's: the implant whose backdoor did not take, a loaded model that is no better than chance.
    """

    def __init__(self) -> None:
        self._found_by: dict[str, TrialRecord] = {}

    def note(self, record: TrialRecord) -> None:
        """Remember the stage behind which a gate stopped a trial."""
        if record.stages and (record.stopped_by or record.fault == WeakImplant.__name__):  # the latter of before
            self._found_by.setdefault(record.stages[-1].key, record)

    def reason_to_skip(self, planned: PlannedTrial) -> TrialRecord | None:
        """Return the failed record of a trial that would be stopped by the same gate; None if it may run.

        The victim's whole configuration has to be the same: with another `min_asr` it may pass.
        """
        found = (self._found_by[node.key] for node in planned.pipeline if node.key in self._found_by)
        victim = planned.assignment.recorded_config["victim"]
        failed = next((record for record in found if record.config["victim"] == victim), None)
        if failed is None:
            return None
        same = {"fault": failed.fault, "failure": failed.failed_by, "gates": tuple(filter(None, [failed.stopped_by]))}
        return planned.assignment.record(State.FAILED, failed.reason).model_copy(update=same)


class OwnWork:
    """What trials that are run again have computed: they find it in the store, and it is their own work."""

    def __init__(self) -> None:
        self._computed: dict[str, dict[str, StageRecord]] = {}

    def keep(self, record: TrialRecord) -> None:
        """Take note of what a trial has computed in a run that is followed by another."""
        own = {stage.key: stage for stage in record.stages if stage.complete and not stage.reused}
        self._computed.setdefault(record.trial, {}).update(own)

    def stages(self, record: TrialRecord) -> tuple[StageRecord, ...]:
        """Return the stages of a trial's newest record, with those as computed that an earlier run of it computed."""
        own = self._computed.get(record.trial, {})
        return tuple(own.get(stage.key, stage) if stage.reused else stage for stage in record.stages)


Planner = Callable[[Proposal, int], PlannedTrial]
"""Makes the trial of a proposal for the seed at a position of the study's seeds."""


class NumberedTrials:
    """Makes a proposal's trials, under the number that its configuration has in this run.

    That is the one it was proposed under, unless a record holds that number already. So an uninterrupted study and a
    resumed one name their trials alike, and a study that goes on with another search leaves the names of what it has
    run before.
    """

    def __init__(self, planner: Planner, records: Iterable[TrialRecord], replicates: int) -> None:
        self._planner, self._replicates = planner, replicates
        self._number_of = {_identity(record.config, record.label): record.number // replicates for record in records}
        self._taken = set(self._number_of.values())

    def __call__(self, proposal: Proposal) -> list[PlannedTrial]:
        """Return the trials of a proposal, one for each seed."""
        start, replicates = proposal.first, proposal.replicates or self._replicates
        first = self._planner(proposal, start)
        number = self._number(proposal.number, first.assignment.recorded_config, proposal.label)
        if number == proposal.number:
            return [first, *(self._planner(proposal, position) for position in range(start + 1, replicates))]
        numbered = replace(proposal, number=number)
        return [self._planner(numbered, position) for position in range(start, replicates)]

    def _number(self, proposed: int, config: Mapping[str, JsonValue], label: TrialLabel) -> int:
        identity = _identity(config, label)
        if identity not in self._number_of:
            number = max(self._taken) + 1 if proposed in self._taken else proposed
            self._number_of[identity] = number
            self._taken.add(number)
        return self._number_of[identity]


def _identity(config: Mapping[str, JsonValue], label: TrialLabel) -> str:
    return json.dumps([label.as_json(), config], sort_keys=True)
