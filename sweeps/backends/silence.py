"""Workers that give no sign of life any more are ended, so that their trials run again elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import ray
from ray.tune import Callback

from sweeps.backends.searcher import SessionSearcher

_LOOK_SECONDS = 15.0


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
