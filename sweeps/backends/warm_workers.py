"""Who keeps idle workers: which of Tune's trials are placeholders, and when one makes room. Knows nothing of Ray.

Tune lets an idle worker go. And while trials are shorter than a worker's start it never gets a second one up: a
trial that waits for its worker is put on the one that is free next, and the worker that was starting for it is
dismissed. So every worker that has nothing to do holds a placeholder, a trial without an assignment that ends as
soon as there is one; and nothing else starts before all workers are up.
"""

from __future__ import annotations

import time
from collections.abc import Callable

START_SECONDS = 60.0
"""How long the first trial waits for all workers to be up; those that come later find work then."""


class Placeholders:
    """The placeholders of one sweep."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._wanted = 0
        self._handed_out = 0
        self._up: dict[str, bool] = {}
        self._released = False
        self._deadline = 0.0

    def begin(self, workers: int) -> None:
        """Let `workers` workers be started, before anything else runs."""
        self._wanted = workers
        self._deadline = self._clock() + START_SECONDS

    @property
    def starting(self) -> bool:
        """Tell whether workers that were asked for at the beginning are not up yet."""
        if self._clock() > self._deadline:
            return False
        return self._handed_out < self._wanted or not all(self._up.values())

    def wanted(self, running: int) -> bool:
        """Tell whether one more is to be handed out, given how many trials are running on workers."""
        return len(self._up) + running < self._wanted

    def hand_out(self, trial_id: str) -> None:
        """Note that one of Tune's trials is a placeholder."""
        self._handed_out += 1
        self._up[trial_id] = False

    def __contains__(self, trial_id: str) -> bool:
        return trial_id in self._up

    def is_up(self, trial_id: str) -> None:
        """Note that a placeholder's worker is up."""
        self._up[trial_id] = True

    def release(self) -> bool:
        """Tell whether one is to make room for an assignment; one for each."""
        released, self._released = self._released, True
        return not released

    def taken(self) -> None:
        """Note that the assignment that room was made for has been taken."""
        self._released = False

    def ended(self, trial_id: str, failed: bool) -> None:
        """Note that one has ended. If its worker could not be started there will be no more: trials tell why."""
        del self._up[trial_id]
        if failed:
            self._wanted = 0
