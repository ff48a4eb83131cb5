"""Warm workers: idle trials keep workers until there is work for them. Knows nothing of Ray.

Tune lets an idle worker go. And while trials are shorter than a worker's start it never gets a second one up: a
trial that waits for its worker is put on the one that is free next, and the worker that was starting for it is
dismissed. So every worker that has nothing to do is kept by an idle trial, one without an assignment, that ends as
soon as there is work; and nothing else starts before all workers are up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

START_SECONDS = 60.0
"""How long the first trial waits for all workers to be up; those that come later find work then."""
WORKER_SECONDS = 2.0
"""How long a trial with an assignment waits for a worker before an idle one ends for it: longer than a change takes."""


class WarmWorkers:
    """The idle trials of one sweep, by the names that Tune gives them."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._wanted = 0
        self._started = 0
        self._up: dict[str, bool] = {}
        self._released = False
        self._complete = False
        self._deadline = 0.0
        self._waiting: dict[str, float] = {}
        """Trials that have an assignment and no worker, and since when."""

    def begin(self, workers: int) -> None:
        """Let `workers` workers be started, before anything else runs."""
        self._wanted = workers
        self._deadline = self._clock() + START_SECONDS

    @property
    def starting(self) -> bool:
        """Tell whether workers that were asked for at the beginning are not up yet."""
        if self._complete or self._clock() > self._deadline:
            return False  # of those that take the places of others, none waits for all
        return self._started < self._wanted or not all(self._up.values())

    @property
    def holding(self) -> bool:
        """Tell whether an idle trial has a worker that the next assignment is to have. Without it that would wait."""
        return any(self._up.values()) and not self._released

    def wanted(self, running: int) -> bool:
        """Tell whether one more idle trial is to start, given how many trials are running on workers."""
        return len(self._up) + running < self._wanted

    def start(self, trial_id: str) -> None:
        """Note that one of Tune's trials is an idle one."""
        self._started += 1
        self._up[trial_id] = False

    def __contains__(self, trial_id: str) -> bool:
        return trial_id in self._up

    def is_up(self, trial_id: str) -> None:
        """Note that an idle trial's worker is up."""
        self._up[trial_id] = True
        self._complete = self._complete or not self.starting

    def fewer(self) -> None:
        """Note that one worker less is to be had."""
        self._wanted = max(0, self._wanted - 1)

    def release(self) -> bool:
        """Tell whether an idle trial is to end, so that its worker takes an assignment: one for each."""
        released, self._released = self._released, True
        return not released

    def taken(self) -> None:
        """Note that the assignment that a worker was released for has been taken."""
        self._released = False

    def frees_a_worker(self, without_worker: Iterable[str]) -> bool:
        """Tell whether an idle trial is to end for one with an assignment that is waiting for a worker.

        An assignment is handed out before its worker is free if workers take long to start, or one ended just now.
        """
        now = self._clock()
        self._waiting = {trial_id: self._waiting.get(trial_id, now) for trial_id in without_worker}
        overdue = next((each for each, since in self._waiting.items() if now - since > WORKER_SECONDS), None)
        if overdue is None:
            return False
        self._waiting[overdue] = now  # as another waiting trial may take it; then one more idle trial ends
        return True

    def ended(self, trial_id: str, failed: bool) -> None:
        """Note that an idle trial has ended. If its worker could not be started, a trial's record says why."""
        was_up = self._up.pop(trial_id)
        if failed and not was_up:
            self._wanted = 0
