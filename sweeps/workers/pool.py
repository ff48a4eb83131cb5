"""The workers of one sweep: how many there should be, which wait for a trial, and which may go. Knows nothing of Ray.

A trial is given to a worker that is there, never to one that is only asked for: so the worker that is free first gets
the trial that is best for it, and a node that joins is used as soon as it has a worker. What makes Tune start a worker,
or keep one, is an idle trial, one without an assignment. It ends when there is a trial for its worker, or when no trial
that waits could use it: an autoscaler can then let its node go, and other jobs have its CPUs and GPUs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from sweeps.workers.places import Place

LIVELY_SECONDS = 30.0
"""How long workers are kept for trials that wait for a stage while nothing comes on: longer than a start takes."""
UNUSED_SECONDS = 5.0
"""How long a worker that has been asked for must be one too many before the request is taken back."""
WORKER_SECONDS = 2.0
"""How long a trial with an assignment waits for a worker before an idle one ends for it: longer than a change takes."""


@dataclass(frozen=True)
class Capacity:
    """How many workers fit on a cluster's nodes."""

    now: int
    """On the nodes that there are."""
    most: int
    """To be asked for at a time: more than fit, where nodes may be added."""
    kept: bool = False
    """No one else has use for it: what runs on this machine alone need let no worker go."""

    def up_to(self, cap: int | None) -> Capacity:
        """Return the capacity that a study makes use of."""
        return self if cap is None else replace(self, now=min(self.now, cap), most=min(self.most, cap))


class Pool:
    """The workers that run no trial, by the names that Tune gives the idle trials which keep them."""

    def __init__(self, capacity: Capacity, clock: Callable[[], float] = time.monotonic) -> None:
        self.capacity = capacity
        self._clock = clock
        self._idle: dict[str, Place | None] = {}
        """Those asked for that are not up have no place yet."""
        self._free: list[Place] = []
        """Workers whose trial has just ended: Tune gives each to the trial that it gets next."""
        self._leaving: set[str] = set()
        """Idle trials that end without their worker being free then."""
        self._came_on = clock()
        self._too_many: float | None = None
        self._waiting: dict[str, float] = {}
        """Trials that have an assignment and no worker, and since when."""
        self.cannot_start = False
        """The last worker that was asked for did not come up."""

    def __contains__(self, trial_id: str) -> bool:
        return trial_id in self._idle

    @property
    def asked_for(self) -> int:
        """Return how many workers are asked for and not up."""
        return sum(place is None for place in self._idle.values())

    def came_on(self) -> None:
        """Note that a trial has begun or ended, or a stage is done: what waits may soon start."""
        self._came_on = self._clock()

    def wanted(self, busy: int, ready: int, waiting: int) -> int:
        """Return how many workers there should be, for trials that run, that may start, and that wait, ready or not."""
        lively = self.capacity.kept or self._clock() - self._came_on < LIVELY_SECONDS
        asked_for = min(busy + ready, self.capacity.most)
        kept = min(busy + max(ready, waiting if lively else 0), self.capacity.now)
        return max(asked_for, kept)

    def lacking(self, busy: int, wanted: int) -> int:
        """Return how many more are to be asked for; fewer than none if there are too many."""
        return wanted - busy - len(self._idle) - len(self._free)

    def ask(self, trial_id: str) -> None:
        """Note that a worker is asked for by an idle trial."""
        self._idle[trial_id] = None

    def keep(self, trial_id: str, place: Place) -> None:
        """Note that an idle trial keeps a worker that is there."""
        self._idle[trial_id] = place

    def free(self) -> Place | None:
        """Take the worker that Tune gives to the trial that it gets next."""
        return self._free.pop(0) if self._free else None

    def ends_with(self, trial_id: str, busy: int, ready: int, wanted: int, without_worker: Iterable[str]) -> bool:
        """Tell whether the idle trial of a worker that is up ends now.

        `without_worker` are trials with an assignment that wait for a worker.
        """
        up = sum(place is not None for place in self._idle.values())
        if busy + up + len(self._free) > wanted or self._frees_a_worker(without_worker):
            self._leaving.add(trial_id)
            return True
        return ready > 0

    def leaves(self, trial_id: str) -> None:
        """Note that an idle trial ends, and that its worker takes no other."""
        self._leaving.add(trial_id)

    def unused(self, busy: int, wanted: int) -> list[str]:
        """Return the idle trials to be taken back, the newest first: their workers are not up, and no longer needed."""
        surplus = -self.lacking(busy, wanted)
        if surplus <= 0:
            self._too_many = None
            return []
        now = self._clock()
        self._too_many = now if self._too_many is None else self._too_many
        if wanted and now - self._too_many < UNUSED_SECONDS:
            return []
        return [trial_id for trial_id, place in reversed(self._idle.items()) if place is None][:surplus]

    def ended(self, trial_id: str, failed: bool = False) -> None:
        """Note that an idle trial has ended; its worker is free then, unless it never was up, or leaves."""
        place = self._idle.pop(trial_id)
        leaves = trial_id in self._leaving
        self._leaving.discard(trial_id)
        self.cannot_start = self.cannot_start or (failed and place is None)
        if place is not None and not leaves and not failed:
            self._free.append(place)

    def freed(self, place: Place) -> None:
        """Note that a trial with an assignment has ended, and its worker is free."""
        self._free.append(place)

    def lost(self) -> None:
        """Note that the worker that was free last gets no other trial."""
        del self._free[-1:]

    def _frees_a_worker(self, without_worker: Iterable[str]) -> bool:
        """Tell whether a worker is to be had for a trial that waits for one: Tune may not have given it that it had."""
        now = self._clock()
        self._waiting = {trial_id: self._waiting.get(trial_id, now) for trial_id in without_worker}
        overdue = next((each for each, since in self._waiting.items() if now - since > WORKER_SECONDS), None)
        if overdue is None:
            return False
        self._waiting[overdue] = now  # as another waiting trial may take it; then one more idle trial ends
        return True
