"""Which configuration would be chosen now, kept up to date trial by trial. The report chooses by the same rule."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from ubt.common.choice import Candidate, RuleName, Seen, choose, mean_candidate
from ubt.trials.record import State, TrialRecord

_END = 0
"""Stands for the end of a trial among its epochs."""
_Key = tuple[str, int]
"""A configuration, as JSON, and an earlier epoch of it, or its end."""


@dataclass(frozen=True)
class Best:
    """The configuration that would be chosen now, with its means over the seeds that have measured it."""

    trial: str
    """The first of its trials."""
    asr: float | None
    """None if no attack is known."""
    ca: float
    seeds: int
    epoch: int = _END
    """After which epoch; 0 for its end."""


class Leaderboard:
    """Takes the records of trials as they end; `every_epoch` says whether their earlier epochs compete, too."""

    def __init__(self, ca_floor: float, rule: RuleName = "lowest_asr", every_epoch: bool = False) -> None:
        self._ca_floor = ca_floor
        self._rule = rule
        self._every_epoch = every_epoch
        self._ended: defaultdict[str, dict[str, TrialRecord]] = defaultdict(dict)
        """Configuration, as JSON → trial → its record."""
        self._candidates: defaultdict[str, dict[int, Candidate]] = defaultdict(dict)
        self._leader: _Key | None = None

    def take(self, record: TrialRecord) -> None:
        """Take note of a trial's newest record."""
        configuration = json.dumps(record.config, sort_keys=True)
        if self._found(record):
            self._ended[configuration][record.trial] = record
        elif self._ended[configuration].pop(record.trial, None) is None:
            return
        self._update(configuration)

    @property
    def best(self) -> Best | None:
        """Return the best; None while none keeps its clean accuracy."""
        if self._leader is None:
            return None
        configuration, epoch = self._leader
        leader = self._candidates[configuration][epoch]
        replicates = self._replicates(configuration, epoch)
        return Best(replicates[0].trial, leader.asr, leader.ca, len(replicates), epoch)

    def _found(self, record: TrialRecord) -> Mapping[int, Candidate]:
        """Return what of a trial may be chosen, by epoch."""
        if record.label.leaves_out:  # what is ablated is never the best
            return {}
        found = _earlier_epochs(record) if self._every_epoch and record.state in {State.DONE, State.PRUNED} else {}
        if record.state is State.DONE and record.candidate:
            found[_END] = record.candidate
        return {epoch: one for epoch, one in found.items() if one.measured(self._rule)}

    def _replicates(self, configuration: str, epoch: int = _END) -> list[TrialRecord]:
        """Return one trial for each seed, by number; of the end those alone that have come to it."""
        every = self._ended[configuration].values()
        trials = sorted((one for one in every if epoch or one.state is State.DONE), key=lambda trial: -trial.number)
        return sorted({trial.seed: trial for trial in trials}.values(), key=lambda trial: trial.number)

    def _update(self, configuration: str) -> None:
        self._candidates[configuration] = self._means(configuration)
        changed = {(configuration, epoch): one for epoch, one in self._candidates[configuration].items()}
        if self._leader and self._leader[0] == configuration:  # it may have fallen behind any other
            rivals = {(name, epoch): one for name, found in self._candidates.items() for epoch, one in found.items()}
        elif self._leader:
            name, epoch = self._leader
            rivals = {self._leader: self._candidates[name][epoch], **changed}
        else:
            rivals = changed
        chosen = choose(rivals.values(), self._ca_floor, self._rule)
        self._leader = next((key for key, rival in rivals.items() if rival is chosen), None)

    def _means(self, configuration: str) -> dict[int, Candidate]:
        """Return the means over seeds: of the end over those that came to it, of an epoch if all have judged it."""
        ends = [self._found(trial)[_END] for trial in self._replicates(configuration)]
        means = {_END: mean_candidate(ends)} if ends else {}
        if self._every_epoch:
            found = [self._found(trial) for trial in self._replicates(configuration, epoch=1)]
            common = set.intersection(*(set(epochs) for epochs in found)) if found else set()
            means |= {epoch: mean_candidate([epochs[epoch] for epochs in found]) for epoch in sorted(common - {_END})}
        return means


def _earlier_epochs(record: TrialRecord) -> dict[int, Candidate]:
    """Return the epochs of the stage that makes the defended model, without the last one and those judged in part."""
    judged = next((one for one in reversed(record.stages) if any(epoch.val for epoch in one.epochs)), None)
    if judged is None or record.poisoned_val is None:
        return {}
    before = record.poisoned_val.ca
    epochs = judged.epochs[:-1] if record.state is State.DONE else judged.epochs
    return {
        one.epoch: Candidate(one.val.asr, one.val.ca, before - one.val.ca, record.number, Seen.of(one.observed))
        for one in epochs
        if one.epoch and one.val and one.val.subset == "all"
    }
