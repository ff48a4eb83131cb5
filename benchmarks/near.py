"""Where the parent of a trial lies: whether a worker that states what it has gets trials that go on from there.

    python benchmarks/near.py

A grid of 243 trials over four stages behind a shared one, seconds of stages within ten percent of each other, on
simulated workers in nodes of four. Counted are trials that go on from a stage whose artifact lies in the memory of
their worker.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from sweeps.scheduling.stage_scheduler import StageScheduler

LEVELS, SECONDS, NODE = (1, 3, 3, 3, 9), (20.0, 30.0, 15.0, 10.0, 8.0), 4

Work = tuple[str, ...]


def grid(dice: random.Random) -> tuple[list[Work], dict[str, float]]:
    """Return the stages of each trial, and the seconds of each stage."""
    works: list[Work] = [()]
    for count in LEVELS:
        works = [(*work, f"{work[-1] if work else ''}/{value}") for work in works for value in range(count)]
    seconds = {stage: SECONDS[at] * dice.uniform(0.9, 1.1) for work in works for at, stage in enumerate(work)}
    return works, seconds


@dataclass
class Workers:
    """Workers with a virtual clock that ask for trials."""

    works: Sequence[Work]
    seconds: dict[str, float]
    count: int
    ask: bool
    """They state what they have."""
    there: dict[int, Work] = field(default_factory=dict)
    """Worker → what its last trial consisted of."""
    found: int = 0
    going_on: int = 0

    def run(self) -> float:
        """Run all trials; return when the last one ended."""
        scheduler: StageScheduler[int] = StageScheduler()
        for number, work in enumerate(self.works):
            scheduler.add(number, work)
        free, clock, events, done = list(range(self.count)), 0.0, [], set[str]()
        while True:
            while free and (trial := scheduler.start(self._near(free[0]) if self.ask else ())) is not None:
                worker = free.pop(0)
                left = [stage for stage in self.works[trial] if stage not in done]
                self._count(worker, self.works[trial][: len(self.works[trial]) - len(left)])
                heapq.heappush(events, (clock + self.seconds[left[0]], worker, trial, left))
            if not events:
                return clock
            clock, worker, trial, left = heapq.heappop(events)
            done.add(left[0])
            scheduler.finished(trial, left[0])
            if left[1:]:
                heapq.heappush(events, (clock + self.seconds[left[1]], worker, trial, left[1:]))
                continue
            scheduler.ended(trial)
            self.there[worker] = self.works[trial]
            free.append(worker)

    def _near(self, worker: int) -> list[str]:
        beside = [other for other in range(self.count) if other // NODE == worker // NODE and other != worker]
        return [stage for one in (worker, *beside) for stage in reversed(self.there.get(one, ()))]

    def _count(self, worker: int, done: Work) -> None:
        self.going_on += bool(done)
        self.found += bool(done) and done[-1] in self.there.get(worker, ())


def main() -> None:
    """Print what docs/clusters.md says."""
    works, seconds = grid(random.Random(1))
    for count in (4, 8, 16):
        for ask in (False, True):
            workers = Workers(works, seconds, count, ask)
            wall = workers.run()
            share = workers.found / workers.going_on
            print(f"{count:2} workers, {'asking' if ask else 'silent'}: parent there {share:.0%}, wall {wall:.0f} s")


if __name__ == "__main__":
    main()
