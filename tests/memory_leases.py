"""Leases in memory, where every step of one process can be preceded by something that others do."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from ubt.artifacts.lease_files import LeaseFiles


class MemoryLeases(LeaseFiles):
    """What a store promises, and no more."""

    def __init__(self, before: Callable[[], None] = lambda: None, promises: bool = True) -> None:
        self.before = before
        self.held: dict[str, str] = {}
        self.beats: dict[str, bytes] = {}
        self.steps = 0
        self._promises = promises

    def take(self, slot: str, name: str) -> bool:
        self._step()
        return self.held.setdefault(slot, name) == name

    def holder(self, slot: str) -> str | None:
        self._step()
        return self.held.get(slot)

    def free(self, slot: str, name: str) -> None:
        self._step()
        if self.held.get(slot) == name:
            del self.held[slot]

    def announce(self, process: str, content: bytes) -> bool:
        self.beat(process, content)
        return self._promises

    def beat(self, process: str, content: bytes) -> None:
        self._step()
        self.beats[process] = content

    def heartbeat(self, process: str) -> bytes | None:
        self._step()
        return self.beats.get(process)

    def silence(self, process: str) -> None:
        self._step()
        self.beats.pop(process, None)

    def slots(self) -> list[tuple[str, str]]:
        return sorted(self.held.items())

    def processes(self) -> dict[str, datetime]:
        return dict.fromkeys(self.beats, datetime.now(UTC))

    def _step(self) -> None:
        self.steps += 1
        self.before()
