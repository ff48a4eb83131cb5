"""What Tune asks of a sweep as it runs: which trial gets a worker, which ends, and what happens between two steps."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import ray
from ray.tune import Callback
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler

from sweeps.backends.node_tasks import ask_again, let_go, never_again, take_back
from sweeps.backends.nodes import Nodes
from sweeps.backends.searcher import SessionSearcher, place_of
from sweeps.backends.trainable import NODE, RECORD, UNFIT
from sweeps.scheduling.session import Session
from sweeps.scheduling.worker_ends import end_of_worker
from ubt.common.ending import Ending

_LOOK_SECONDS = 15.0
"""How often it is looked whether workers still give signs of life."""


class Order(FIFOScheduler):
    """Assignments first; idle trials end when their workers are needed, or of no use any more.

    Nodes in quarantine, and those that leave the cluster, get none.
    """

    def __init__(self, searcher: SessionSearcher, nodes: Nodes | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._searcher = searcher
        self._nodes = nodes
        self._changes = 0

    def choose_trial_to_run(self, tune_controller: TuneController) -> Trial | None:
        """Tune begins a step, and has new trials from the searcher. Return one for which there may be a free worker.

        To the others Tune gives what is free then in its own order, those first that have asked for none yet: one that
        waits for a worker which is being started goes on waiting for it.
        """
        if self._nodes:
            self._nodes.poll()
            self._searcher.pool.capacity = self._nodes.capacity
            if self._nodes.changes != self._changes:
                self._changes = self._nodes.changes
                ask_again(tune_controller)
        now = live(tune_controller)
        self._searcher.check_startable(running=any(each.status == Trial.RUNNING for each in now))
        pending = {each.trial_id: each for each in now if each.status == Trial.PENDING}
        self._searcher.for_free &= pending.keys()
        if not self._searcher.for_free:
            let_go(tune_controller)
        for trial_id in self._searcher.unused():
            if trial_id in pending:
                take_back(tune_controller, pending.pop(trial_id))
        return next((each for name, each in pending.items() if self._searcher.has_assignment(name)), None)

    def on_trial_error(self, tune_controller: object, trial: Trial) -> None:
        """Take down why a trial's worker is gone. Tune tells its scheduler first, then the searcher."""
        self._searcher.worker_ended(trial.trial_id, end_of_worker(error_text(trial)))

    def on_trial_result(self, tune_controller: TuneController, trial: Trial, result: dict[str, Any]) -> str:
        """Tell Tune whether a trial goes on."""
        pending = [each.trial_id for each in live(tune_controller) if each.status == Trial.PENDING]
        ends = self._searcher.releases_worker(trial.trial_id, place_of(result), self._kept_off(result), pending)
        return self.STOP if ends or self._searcher.hands_back(trial.trial_id, result) else self.CONTINUE

    def on_trial_complete(self, tune_controller: object, trial: Trial, result: dict[str, Any]) -> None:
        """Put a node into quarantine whose worker has found that it is not fit."""
        if self._nodes and (unfit := result.get(UNFIT)):
            self._nodes.quarantine(result[NODE], *unfit)

    def _kept_off(self, result: dict[str, Any]) -> bool:
        return self._nodes is not None and result.get(NODE) in self._nodes.closed


class Interruption(Callback):
    """Lets a sweep end between two of Tune's steps, a tenth of a second apart.

    Within a call to a cluster an end could leave a lock of gRPC's taken, for which the disconnection then waits. If
    there is time, every trial that runs comes to the end of its stage or epoch first.
    """

    def __init__(self, ending: Ending, session: Session) -> None:
        self._ending = ending
        self._session = session
        self._under_way: set[str] | None = None

    def on_step_begin(self, iteration: int, trials: list[Trial], **info: object) -> None:
        """Tune begins a step."""
        if not self._ending.seconds_for_work:
            self._ending.check()
            return
        if self._under_way is None:
            self._session.stop("it was interrupted")
            self._under_way = {trial.trial_id for trial in trials if trial.status == Trial.RUNNING}
        if not self._under_way:
            self._ending.check()

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: object
    ) -> None:
        """A trial has come to the end of a stage or epoch, unless it has just begun or this is a sign of life."""
        if self._under_way is not None and RECORD in result and json.loads(result[RECORD])["stages"]:
            self._under_way.discard(trial.trial_id)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: object) -> None:
        """A trial has ended."""
        if self._under_way is not None:
            self._under_way.discard(trial.trial_id)

    on_trial_error = on_trial_complete


class Retirement(Callback):
    """Lets the worker of a trial that has ended go, if its node gets no more: Tune would give it the next trial.

    Tune calls this when its scheduler and searcher know of the end, which may be what puts the node into quarantine.
    """

    def __init__(self, searcher: SessionSearcher, nodes: Nodes | None) -> None:
        self._searcher = searcher
        self._nodes = nodes

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Trial, **info: object) -> None:
        """A trial has ended, and its worker has not been given another one yet."""
        if self._nodes and trial.last_result.get(NODE) in self._nodes.closed:
            never_again(trial)
            self._searcher.lost_worker()


class Silence(Callback):
    """Ends workers that give no sign of life: a process that was stopped, or hangs where no thread of it can say so."""

    def __init__(self, searcher: SessionSearcher, clock: Callable[[], float] = time.monotonic) -> None:
        self._searcher = searcher
        self._clock = clock
        self._looked = clock()

    def on_step_begin(self, iteration: int, trials: list[Any], **info: object) -> None:
        """Tune begins a step."""
        if self._clock() - self._looked < _LOOK_SECONDS:
            return
        self._looked = self._clock()
        for trial in trials:
            actor = trial.temporary_state.ray_actor
            if actor is not None and self._searcher.silent(trial.trial_id):
                ray.kill(actor)


def live(controller: TuneController) -> Iterable[Trial]:
    """Return those of Tune's trials that have not ended."""
    trials: set[Trial] = controller.get_live_trials()  # type: ignore[no-untyped-call]
    return trials


def error_text(trial: Trial) -> str:
    """Return the text of what ended a trial last, from the file in which Tune keeps it on this machine."""
    try:
        return Path(trial.error_file).read_text(encoding="utf-8") if trial.error_file else ""
    except OSError as error:
        return f"Ray's account of it cannot be read: {error}"
