"""How long work takes on several workers: what needs what, and who is free. Pure arithmetic."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Task:
    """A piece of work that one worker does at a stretch."""

    seconds: float
    needs: tuple[str, ...] = ()
    """Keys of those that come before it; what is not among the tasks is done already."""


def path_seconds(tasks: Mapping[str, Task]) -> dict[str, float]:
    """Return for each task the seconds from its start to the end of the longest chain that it begins.

    A task stands behind those that it needs.
    """
    longest: dict[str, float] = {}
    followed: defaultdict[str, float] = defaultdict(float)
    for key, task in reversed(list(tasks.items())):
        longest[key] = task.seconds + followed[key]
        for before in task.needs:
            followed[before] = max(followed[before], longest[key])
    return longest


def wall_seconds(tasks: Mapping[str, Task], workers: int) -> float:
    """Return how long the tasks take if free workers take what begins the longest chain. A task is behind its needs."""
    urgency = path_seconds(tasks)
    users: defaultdict[str, list[str]] = defaultdict(list)
    waits_for: dict[str, int] = {}
    for key, task in tasks.items():
        needed = [before for before in dict.fromkeys(task.needs) if before in tasks]
        waits_for[key] = len(needed)
        for before in needed:
            users[before].append(key)
    ready = [(-urgency[key], key) for key, count in waits_for.items() if not count]
    heapq.heapify(ready)
    running: list[tuple[float, str]] = []
    now, free = 0.0, workers
    while ready or running:
        while ready and free:
            _, key = heapq.heappop(ready)
            heapq.heappush(running, (now + tasks[key].seconds, key))
            free -= 1
        now, key = heapq.heappop(running)
        free += 1
        for user in users[key]:
            waits_for[user] -= 1
            if not waits_for[user]:
                heapq.heappush(ready, (-urgency[user], user))
    return now
