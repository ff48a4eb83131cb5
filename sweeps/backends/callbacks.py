"""What happens between two of Tune's steps: a sweep ends, a node's worker retires, a silent worker is ended."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import ray
from ray.tune import Callback
from ray.tune.experiment import Trial

from sweeps.backends.node_tasks import never_again
from sweeps.backends.nodes import Nodes
from sweeps.backends.searcher import SessionSearcher
from sweeps.backends.trainable import NODE, WAITS
from sweeps.scheduling.session import Session
from ubt.common.ending import Ending

_LOOK_SECONDS = 15.0
"""How often it is looked whether workers still give signs of life."""


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
        """A trial has come to the end of a stage or epoch, if this is no mere sign of life."""
        if self._under_way is not None and WAITS not in result:
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
