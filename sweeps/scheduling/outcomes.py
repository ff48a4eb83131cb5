"""What became of trials: what the search is given, which victims failed, and the numbers that configurations keep."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

from pydantic import JsonValue

from sweeps.planning.trials import PlannedTrial
from sweeps.search.proposals import Outcome
from ubt.common.errors import WeakImplant
from ubt.trials.labels import NO_LABEL, TrialLabel
from ubt.trials.record import State, TrialRecord


def outcome_of(record: TrialRecord) -> Outcome:
    """Return a trial's objectives; none if it failed."""
    if record.state is not State.DONE or record.val is None:
        return Outcome(None)
    ca_lost = record.poisoned_val.ca - record.val.ca if record.poisoned_val else None
    return Outcome((record.val.asr, record.val.ca), ca_lost)


def mean_outcome(outcomes: Sequence[Outcome]) -> Outcome:
    """Return the mean over seeds: a failure if one of them failed."""
    values = [outcome.values for outcome in outcomes]
    if any(value is None for value in values):
        return Outcome(None)
    means = tuple(fmean(column) for column in zip(*(v for v in values if v is not None), strict=True))
    lost = [outcome.ca_lost for outcome in outcomes if outcome.ca_lost is not None]
    return Outcome(means, fmean(lost) if lost else None)


class Condemned:
    """The implants that were judged too weak, each with the record of the trial that found out."""

    def __init__(self) -> None:
        self._by_implant: dict[str, TrialRecord] = {}

    def note(self, record: TrialRecord) -> None:
        """Remember the victim of a trial that failed for its implant."""
        if record.fault == WeakImplant.__name__:
            for stage in record.stages:
                if stage.stage == "implant":
                    self._by_implant.setdefault(stage.key, record)

    def verdict(self, planned: PlannedTrial) -> TrialRecord | None:
        """Return the failed record of a trial whose victim is condemned; another `min_asr` is another judgement."""
        found = (self._by_implant[node.key] for node in planned.pipeline if node.key in self._by_implant)
        victim = planned.assignment.config["victim"]
        doom = next((record for record in found if record.config["victim"] == victim), None)
        if doom is None:
            return None
        return planned.assignment.record(State.FAILED, doom.reason).model_copy(update={"fault": doom.fault})


class Numbering:
    """Gives every configuration the number it was proposed under, unless a record holds that number already.

    So an uninterrupted study and a resumed one name their trials alike, and a study that goes on with another
    search leaves the names of what it has run before.
    """

    def __init__(self, records: Iterable[TrialRecord], replicates: int) -> None:
        self._number_of = {_identity(record.config, record.label): record.number // replicates for record in records}
        self._taken = set(self._number_of.values())

    def number(self, proposed: int, config: Mapping[str, JsonValue], label: TrialLabel = NO_LABEL) -> int:
        """Return the number of a configuration that was proposed as the `proposed`-th, under this label."""
        identity = _identity(config, label)
        if identity not in self._number_of:
            number = max(self._taken) + 1 if proposed in self._taken else proposed
            self._number_of[identity] = number
            self._taken.add(number)
        return self._number_of[identity]


def _identity(config: Mapping[str, JsonValue], label: TrialLabel) -> str:
    return json.dumps([label.as_json(), config], sort_keys=True)
