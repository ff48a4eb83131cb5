"""The Tune trainable: a step is the next stage or epoch of a trial, an actor runs one trial after the other."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import ray
from ray import tune

from sweeps.backends.connection import node_name
from sweeps.backends.fitness import Finding, judge, unfit_record
from sweeps.backends.node_facts import look
from sweeps.backends.private import own_folder
from sweeps.backends.work import Turns, Work, stalled_record, stands_still
from ubt.artifacts.manifest import utc_now
from ubt.common.progress import PULSE
from ubt.trials.assignment import Assignment
from ubt.trials.record import Attempt, State, TrialRecord

if TYPE_CHECKING:
    from ubt.engine.runner import TrialRunner

ASSIGNMENT, RECORD, NODES = "assignment", "record", "nodes"
"""Of a trial's configuration and of its results. `NODES` is there on a cluster: see `Nodes.for_workers`."""
NODE, WORKER, UNFIT = "node_id", "worker", "unfit"
"""Of a result: Ray's ids of the worker's node and of the worker; what is wrong with that node (`what`, `advice`) if it
can run no trial."""

WAITS = "waits"
"""Of a result without a record, which is a sign of life: what the trial waits for, empty if it computes."""

_STEP_SECONDS = 0.1
"""Stages shorter than this are reported together, a report costs more than they do; but never with a longer one."""
_IDLE_SECONDS = 0.2
"""How often an idle trial asks whether it is to end."""
_ALIVE_SECONDS = 30.0
"""How often a long step gives a sign of life."""
_LOOK_SECONDS = 1.0
"""How often it is looked whether a stage still comes on, and whether it is this trial's turn."""
_STALLED_STATUS = 70


class UbtTrainable(tune.Trainable):
    """Runs assignments. What it keeps between trials (imports, data, evaluation images) is the runner's."""

    def setup(self, config: dict[str, Any]) -> None:
        """Make the actor's runner and take on the first trial."""
        self._node = ray.get_runtime_context().get_node_id()
        self._here = {NODE: self._node, WORKER: ray.get_runtime_context().get_actor_id()}
        self._runner = self.runner_on(node_name(self._node, ray.nodes()))  # type: ignore[no-untyped-call]
        self._looked = False
        gpus = ray.get_runtime_context().get_accelerator_ids().get("GPU", [])
        self._turns = Turns(own_folder(), [str(gpu) for gpu in gpus])
        self._work = Work()
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
        """Run on until the next stage or epoch ends; report the trial's record as JSON. An idle trial only waits.

        What takes long gives signs of life in between. A trial that stands still is reported as ended by that, and this
        process, in which it may stand for ever, ends with the next call.
        """
        if self._stalled:
            os._exit(_STALLED_STATUS)  # an exception would wait for the thread that stands still
        if self._unfit:
            return {**self._refusal(), **self._here, UNFIT: (self._unfit.what, self._unfit.advice), "done": True}
        if self._records is None or self._assignment is None:
            time.sleep(_IDLE_SECONDS)
            return {**self._here, "done": False}
        record, waits = self._next_record(self._assignment, self._records)
        if record is None:
            return {WAITS: waits, **self._here, "done": False}
        done = record.state.ended and not self._stalled
        if record.state.ended or not (self._assignment.alone or self._work.under_way):
            self._turns.leave()
        return {RECORD: record.model_dump_json(), **self._here, "done": done}

    def _next_record(self, assignment: Assignment, records: Iterator[TrialRecord]) -> tuple[TrialRecord | None, str]:
        """Return the trial's newest record; None if it takes longer than a sign of life may, with what it waits for."""
        began = time.monotonic()
        while not self._turns.enter(assignment.alone):
            if time.monotonic() - began > _ALIVE_SECONDS:
                others = "the trials beside it, to be alone" if assignment.alone else "a trial that is alone here"
                return None, f"{others}, as memory ran out before"
            if assignment.gpus:
                _give_back_gpu_memory()
            time.sleep(_LOOK_SECONDS)
        short: TrialRecord | None = None
        while True:
            self._work.ask(records)
            record = self._work.answer(_STEP_SECONDS if short else _LOOK_SECONDS)
            if record is not None:
                self._newest = short = record
                if record.state.ended or time.monotonic() - began > _STEP_SECONDS:
                    return record, ""
            elif short is not None:  # what follows takes longer, and others may wait for what is done
                return short, ""
            elif fresh := self._runner.refreshed(self._newest):
                self._newest = fresh
                return fresh, ""
            elif what := stands_still(assignment):
                self._stalled = True
                return stalled_record(self._newest, what, self._work.where()), ""
            elif time.monotonic() - began > _ALIVE_SECONDS:
                return None, PULSE.waits_for

    def cleanup(self) -> None:
        """Give back what other sweeps may wait for."""
        self._runner.close()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing to save: finished stages are in the store, and a restored trial finds them there."""

    def load_checkpoint(self, checkpoint: object) -> None:
        """Nothing to load."""

    def _begin(self, config: dict[str, Any]) -> None:
        given = config[ASSIGNMENT]
        self._assignment = Assignment.model_validate(given) if given is not None else None
        self._unfit = self._wrong_here(config.get(NODES))
        self._records: Iterator[TrialRecord] | None = None
        self._turns.leave()
        self._stalled = False
        if self._assignment:
            self._records = self._runner.run(self._assignment)
            attempt = Attempt(started_at=utc_now(), node=self._runner.node, alone=self._assignment.alone)
            begun = {"started_at": attempt.started_at, "attempts": (attempt,)}
            self._newest = self._assignment.record(State.RUNNING).model_copy(update=begun)

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


def _give_back_gpu_memory() -> None:
    """Give back what torch keeps of a GPU's memory without using it: a trial that is alone may need it."""
    from torch import cuda  # noqa: PLC0415 — as above

    cuda.empty_cache()
