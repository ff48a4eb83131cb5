"""Victims that are not worth defending: their backdoor did not take, so no further trial of them starts."""

from __future__ import annotations

from sweeps.planned import PlannedTrial
from ubt.errors import WeakImplant
from ubt.records import State, TrialRecord


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
