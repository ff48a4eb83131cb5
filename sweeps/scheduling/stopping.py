"""What each trial is compared with to be stopped: where those before it stood after as many epochs.

Trials of one victim and one seed are compared, at the same stage: so a replicate is not stopped for the luck of
another's seed, nor a defense for what an easier attack leaves behind. A configuration is compared with those up to
`lag` before it in the order of the search. These have ended when it begins (`sweeps.search.lagged`), and no others
count, ended or not: so the same trials are stopped at the same epochs on any number of workers.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence

from sweeps.planning.trials import PlannedTrial
from ubt.trials.record import TrialRecord
from ubt.trials.stopping import MOST_PEERS, Point, StopRule, judged_epochs

Group = tuple[str, int, str]
"""Victim, seed, and the stage whose epochs are judged."""


class Stops:
    """The rules by which the trials of one sweep are stopped, each as the planner made it, with what it compares."""

    def __init__(self) -> None:
        self._configurations = 0
        self._trials: dict[str, tuple[Group, int, StopRule]] = {}
        """Trial → its group, the place of its configuration in the order of the search, and its rule."""
        self._stood: defaultdict[Group, list[tuple[int, str, Mapping[int, Point]]]] = defaultdict(list)
        """Trials that have ended: place, name, and where each stood, by epoch."""

    def begin(self, trials: Sequence[PlannedTrial]) -> None:
        """Take note of the trials of the next configuration."""
        for planned in trials:
            if (rule := planned.assignment.stopping) is not None:
                victim = json.dumps(planned.assignment.recorded_config["victim"], sort_keys=True)
                group = victim, planned.assignment.seed, rule.stage
                self._trials[planned.name] = group, self._configurations, rule
        self._configurations += 1

    def ended(self, record: TrialRecord) -> None:
        """Take note of where a trial stood after its epochs."""
        if (known := self._trials.get(record.trial)) is not None:
            group, place, rule = known
            judged = judged_epochs((epoch for stage, epoch in record.epochs if stage == rule.stage), rule.choice)
            points = {one.epoch: one.point for one in judged if one.point is not None}
            self._stood[group].append((place, record.trial, points))

    def rule_of(self, planned: PlannedTrial) -> StopRule | None:
        """Return by what a trial is stopped that begins now, with what it is compared with; None if it is not."""
        if (known := self._trials.get(planned.name)) is None:
            return None
        group, place, rule = known
        last = place - (rule.settings.lag or place + 1)
        stood = [points for at, _, points in sorted(self._stood[group], key=lambda one: one[:2]) if at <= last]
        epochs = next(node.epochs for node in planned.pipeline if node.spec.name == rule.stage)
        peers = {
            rung: tuple(points[rung] for points in stood if rung in points)[-MOST_PEERS:]
            for rung in rule.settings.rungs(epochs)
        }
        return rule.model_copy(update={"peers": peers})
