"""The stage scheduler: which trial may start now, so that no stage is computed twice, even while it is computed.

A trial may start when no running trial is still to compute a stage that it needs too. Of those that may, the
one whose stages most other waiting trials need goes first. Pure logic: no Ray, no clock, no disk.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence
from typing import Generic, TypeVar

Trial = TypeVar("Trial", bound=Hashable)


_MOST_POPPED = 200
"""Offers looked at one by one before the stale ones among them are dropped in one pass."""
_MOST_NEAR = 200
"""Trials looked at for one that goes on from what lies near the worker that asks."""


class StageScheduler(Generic[Trial]):
    """Holds waiting trials until the work they share with running ones is done.

    Work is named by strings (the key of a stage, or of an epoch that trials share). Each call costs time in
    proportion to the trials that share the work named in it, and the first `start` after an `add` to those that
    wait, so a whole study costs trials × stages.
    """

    def __init__(self, done: Iterable[str] = ()) -> None:
        self._done = set(done)
        self._pending: dict[Trial, tuple[str, ...]] = {}
        self._work: dict[Trial, tuple[str, ...]] = {}
        """All that a waiting trial consists of, done or not."""
        self._order: dict[Trial, int] = {}
        self._running: dict[Trial, set[str]] = {}
        self._in_flight: Counter[str] = Counter()
        self._elsewhere: set[str] = set()
        self._users: defaultdict[str, dict[Trial, None]] = defaultdict(dict)
        """Waiting trials by each piece of their work, in the order in which they were added."""
        self._blocks: dict[Trial, int] = {}
        self._heap: list[tuple[int, int, Trial]] = []
        self._grown = False
        self._free = 0  # waiting trials that nothing blocks
        self._counted: int | None = None
        """What `startable` counted last, up to `_counted_to`; None if something has changed since."""
        self._counted_to = 0

    @property
    def waiting(self) -> int:
        """Return how many trials wait."""
        return len(self._pending)

    @property
    def running(self) -> int:
        """Return how many trials run."""
        return len(self._running)

    def is_done(self, piece: str) -> bool:
        """Tell whether a piece of work is done."""
        return piece in self._done

    def is_elsewhere(self, piece: str) -> bool:
        """Tell whether somebody else does a piece of work."""
        return piece in self._elsewhere

    def add(self, trial: Trial, work: Sequence[str]) -> None:
        """Let a trial wait; `work` names all it consists of, done or not.

        Raises:
            ValueError: if the trial waits or runs already.
        """
        if trial in self._pending or trial in self._running:
            raise ValueError(f"{trial} is waiting or running already")
        self._counted = None
        self._work[trial] = tuple(dict.fromkeys(work))
        needed = tuple(piece for piece in self._work[trial] if piece not in self._done)
        self._order.setdefault(trial, len(self._order))
        self._pending[trial] = needed
        for piece in self._work[trial]:
            self._users[piece][trial] = None
        self._blocks[trial] = sum(1 for piece in needed if piece in self._in_flight)
        self._free += not self._blocks[trial]
        self._grown = True

    def startable(self, at_most: int) -> int:
        """Return how many waiting trials may run side by side, beside those that run; counted up to `at_most`."""
        if self._counted is not None and (self._counted < self._counted_to or at_most <= self._counted_to):
            return min(self._counted, at_most)
        taken: set[str] = set()
        count, looked_at = 0, 0
        for trial in self._pending if self._free else ():
            if count == at_most or looked_at == self._free:
                break
            if self._blocks[trial]:
                continue
            looked_at += 1
            needed = [piece for piece in self._pending[trial] if piece not in self._done]
            if taken.isdisjoint(needed):
                taken.update(needed)
                count += 1
        self._counted, self._counted_to = count, at_most
        return count

    def start(self, near: Sequence[str] = ()) -> Trial | None:
        """Return the trial to start now, or None if all that wait need work that is under way.

        Of those that as many others wait for, one goes first that goes on from work whose result lies `near`: named
        from the nearest on.
        """
        if not self._free:
            self._heap.clear()  # all of it is stale, and popping it one by one takes long
            return None
        if self._grown:  # what was added raises the scores of those offered before
            self._heap.clear()
            for trial in self._pending:
                self._offer(trial)
            self._grown = False
        looked_at = 0
        while self._heap:
            looked_at += 1
            if looked_at == _MOST_POPPED and len(self._heap) > 2 * self._free:
                self._shed()
            score, order, trial = heapq.heappop(self._heap)
            if trial not in self._pending or self._blocks[trial]:
                continue  # stale: it started, or was blocked and will be offered again
            current = self._score(trial)
            if current < -score:  # others went ahead since it was offered
                heapq.heappush(self._heap, (-current, order, trial))
                continue
            nearest = self._nearest(near, current)
            if nearest is not None and nearest != trial:
                heapq.heappush(self._heap, (-current, order, trial))
                trial = nearest
            self._begin(trial)
            return trial
        return None

    def _nearest(self, near: Sequence[str], score: int) -> Trial | None:
        """Return a trial of at least this score that goes on from what lies near; None if there is none to be seen."""
        looked_at = 0
        for piece in near:
            for trial in self._users.get(piece, ()):
                looked_at += 1
                if not self._blocks[trial] and self._score(trial) >= score:
                    return trial
                if looked_at == _MOST_NEAR:
                    return None
        return None

    def _shed(self) -> None:
        """Drop stale offers in one pass, which is quicker than to pop them one by one."""
        fresh = {offer[2]: offer for offer in self._heap if self._blocks.get(offer[2]) == 0}
        self._heap = sorted(fresh.values())  # which is a heap, and quicker than to make one

    def finished(self, trial: Trial, piece: str) -> None:
        """Note that a running trial has done a piece of work (or found it done)."""
        self._counted = None
        self._done.add(piece)
        if piece in self._running.get(trial, ()):
            self._running[trial].discard(piece)
            self._release(piece)

    def ended(self, trial: Trial) -> None:
        """Note that a running trial has ended, well or not: what it did not do is free again."""
        self._counted = None
        for piece in self._running.pop(trial, set()):
            self._release(piece)

    def elsewhere(self, piece: str) -> None:
        """Note that a piece of work is being done by somebody else: those that need it wait, the others go first."""
        self._counted = None
        if piece not in self._elsewhere and piece not in self._done:
            self._elsewhere.add(piece)
            self._take(piece)

    def returned(self, piece: str, done: bool) -> None:
        """Note that somebody else has done a piece of work, or given it up."""
        self._counted = None
        if done:
            self._done.add(piece)
        if piece in self._elsewhere:
            self._elsewhere.discard(piece)
            self._release(piece)

    def withdraw(self, trial: Trial) -> None:
        """Take a waiting trial out."""
        self._counted = None
        del self._pending[trial]
        for piece in self._work.pop(trial):
            del self._users[piece][trial]
        self._free -= not self._blocks.pop(trial)

    def _begin(self, trial: Trial) -> None:
        needed = {piece for piece in self._pending[trial] if piece not in self._done}
        self.withdraw(trial)
        self._running[trial] = needed
        for piece in needed:
            self._take(piece)

    def _take(self, piece: str) -> None:
        self._in_flight[piece] += 1
        if self._in_flight[piece] == 1:
            for other in self._users[piece]:
                self._free -= not self._blocks[other]
                self._blocks[other] += 1

    def _release(self, piece: str) -> None:
        self._in_flight[piece] -= 1
        if self._in_flight[piece]:
            return
        del self._in_flight[piece]
        for other in self._users.get(piece, ()):
            self._blocks[other] -= 1
            self._free += not self._blocks[other]
            self._offer(other)

    def _offer(self, trial: Trial) -> None:
        if not self._blocks[trial]:
            heapq.heappush(self._heap, (-self._score(trial), self._order[trial], trial))

    def _score(self, trial: Trial) -> int:
        """Return how many waiting trials need what this one would do, counted for each piece of work."""
        return sum(len(self._users[piece]) - 1 for piece in self._pending[trial] if piece not in self._done)
