"""The Tune trainable: a step is the next stage or epoch of a trial, an actor runs one trial after the other."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import ray
from ray import tune

from sweeps.backends.connection import node_name
from sweeps.backends.fitness import Finding, judge, unfit_record
from sweeps.backends.node_facts import look
from ubt.trials.assignment import Assignment
from ubt.trials.record import TrialRecord

if TYPE_CHECKING:
    from ubt.engine.runner import TrialRunner

ASSIGNMENT, RECORD, NODES = "assignment", "record", "nodes"
"""Of a trial's configuration and of its results. `NODES` is there on a cluster: see `Nodes.for_workers`."""
NODE, UNFIT = "node_id", "unfit"
"""Of a result: Ray's id of the worker's node, and what is wrong with it (`what`, `advice`) if it can run no trial."""

_STEP_SECONDS = 0.1
"""Stages shorter than this are reported together: a report costs more than they do."""
_IDLE_SECONDS = 0.2
"""How often an idle trial asks whether it is to end."""


class UbtTrainable(tune.Trainable):
    """Runs assignments. What it keeps between trials (imports, data, evaluation images) is the runner's."""

    def setup(self, config: dict[str, Any]) -> None:
        """Make the actor's runner and take on the first trial."""
        self._node = ray.get_runtime_context().get_node_id()
        self._runner = self.runner_on(node_name(self._node, ray.nodes()))  # type: ignore[no-untyped-call]
        self._looked = False
        self._begin(config)

    def runner_on(self, node: str) -> TrialRunner:
        """Return what runs this actor's trials on the node of this name; measurements have one of their own."""
        from ubt.engine.runner import TrialRunner  # noqa: PLC0415 — torch: for workers, not for the process that starts them

        return TrialRunner(node)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take on another trial in the same process."""
        self._begin(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Run on until the next stage or epoch ends; report the trial's record as JSON. An idle trial only waits."""
        if self._unfit:
            return {**self._refusal(), NODE: self._node, UNFIT: (self._unfit.what, self._unfit.advice), "done": True}
        if self._records is None:
            time.sleep(_IDLE_SECONDS)
            return {NODE: self._node, "done": False}
        deadline = time.perf_counter() + _STEP_SECONDS
        record = next(self._records)
        while not record.state.ended and time.perf_counter() < deadline:
            record = next(self._records)
        return {RECORD: record.model_dump_json(), NODE: self._node, "done": record.state.ended}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing to save: finished stages are in the store, and a restored trial finds them there."""

    def load_checkpoint(self, checkpoint: object) -> None:
        """Nothing to load."""

    def _begin(self, config: dict[str, Any]) -> None:
        given = config[ASSIGNMENT]
        self._assignment = Assignment.model_validate(given) if given is not None else None
        self._unfit = self._wrong_here(config.get(NODES))
        self._records: Iterator[TrialRecord] | None = None
        if self._assignment:
            self._records = self._runner.run(self._assignment)

    def _wrong_here(self, nodes: dict[str, Any] | None) -> Finding | None:
        """Return why no trial may run here: this worker may have started before its node was looked at."""
        if nodes is None or self._looked or self._node in nodes["well"]:
            return None
        expected = nodes["expected"]
        found = judge(expected, look(expected.asked()))
        self._looked = found is None
        return found

    def _refusal(self) -> dict[str, str]:
        if not (self._assignment and self._unfit):
            return {}
        return {RECORD: unfit_record(self._assignment, self._unfit, self._runner.node).model_dump_json()}
