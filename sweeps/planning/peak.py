"""How much a store holds of a study at most, and how little it could: with a budget, and without one.

Trials are taken in the order of the plan. An artifact has to be there from the first trial that needs it to the last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sweeps.planning.costs import Piece
from ubt.engine.graph import Pipeline


@dataclass(frozen=True)
class StorePeak:
    """What a study's artifacts take at the worst moment; None where a size is not known."""

    everything_bytes: float | None
    """All of them: without a budget nothing goes."""
    needed_bytes: float | None
    """What trials that are under way or yet to run need at a time, at most: a budget cannot make it less."""

    def within(self, budget_bytes: int | None) -> float | None:
        """Return the peak under a budget; None without one."""
        if budget_bytes is None or self.everything_bytes is None or self.needed_bytes is None:
            return None
        return min(self.everything_bytes, max(budget_bytes, self.needed_bytes))


def store_peak(pipelines: Sequence[Pipeline], pieces: Mapping[str, Piece], at_a_time: int) -> StorePeak:
    """Return the peak of trials that run in this order, so many at a time."""
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    for number, pipeline in enumerate(pipelines):
        for node in pipeline:
            first.setdefault(node.key, number)
            last[node.key] = number
    sizes = {key: pieces[key].size_bytes for key in first}
    if None in sizes.values():
        return StorePeak(None, None)
    changes = [0.0] * (len(pipelines) + 1)
    for key, size in sizes.items():
        changes[first[key]] += size or 0.0
        changes[min(last[key] + max(1, at_a_time), len(pipelines))] -= size or 0.0
    held, most = 0.0, 0.0
    for change in changes:
        held += change
        most = max(most, held)
    return StorePeak(sum(size or 0.0 for size in sizes.values()), most)
