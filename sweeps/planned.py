"""One trial before it runs: what a worker is told, the work it consists of, and which record answers it."""

from __future__ import annotations

from dataclasses import dataclass

from ubt.assignment import Assignment
from ubt.graph import Node, Pipeline
from ubt.records import StageRecord, State, TrialRecord


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
        """Return the work of a stage as the gate counts it: one key for each epoch that trials share, and its own."""
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
        stage tells nothing of its work.
        """
        same = record.config == self.assignment.config and record.seed == self.assignment.seed
        keys, done = [node.key for node in self.pipeline], [stage.key for stage in record.stages]
        same_work = done == keys if record.state is State.DONE else bool(done) and done == keys[: len(done)]
        return record.state.ended and not record.lost and same and same_work

    def _kept(self, node: Node) -> tuple[int, ...]:
        return self.assignment.keep_epochs.get(node.spec.name, ()) if node.spec.epochs else ()
