"""Where workers are, and which stages' artifacts lie there: in a worker's memory, or in a cache of its node."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ubt.trials.record import TrialRecord

_KEPT_ON_NODE = 100
"""Artifacts that were used on a node lately."""


@dataclass(frozen=True)
class Place:
    """Where a worker is."""

    worker: str = ""
    """Ray's id of it."""
    node: str = ""
    """Ray's id of its node."""


class Places:
    """What the trials of a sweep have left where."""

    def __init__(self) -> None:
        self._on_worker: dict[str, tuple[str, ...]] = {}
        self._on_node: dict[str, dict[str, None]] = {}

    def note(self, place: Place, record: TrialRecord) -> None:
        """Note that a trial has run on a worker: what it computed or read lies there now, the last of it nearest."""
        keys = tuple(stage.key for stage in record.stages if stage.complete)
        self._on_worker[place.worker] = keys
        there = self._on_node.setdefault(place.node, {})
        for key in keys:
            there.pop(key, None)
            there[key] = None
        for key in list(there)[:-_KEPT_ON_NODE]:
            del there[key]

    def near(self, place: Place) -> list[str]:
        """Return the keys of what lies near a worker, from the nearest on."""
        return list(dict.fromkeys(self._keys(place)))

    def _keys(self, place: Place) -> Iterator[str]:
        yield from reversed(self._on_worker.get(place.worker, ()))
        yield from reversed(self._on_node.get(place.node, ()))
