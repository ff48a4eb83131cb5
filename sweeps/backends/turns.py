"""Turns at a node or a GPU: a trial that ran out of memory computes while no other one of its user does there.

Every worker holds a place while it computes a step. One that is to be alone waits for all places and keeps them to the
end of its trial; the others wait between two of their steps. Locks of the operating system: gone with their process.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence
from pathlib import Path

NODE = "node"


class Turns:
    """One worker's part in the turns at its node and at each of its GPUs."""

    def __init__(self, folder: Path, gpus: Sequence[str] = ()) -> None:
        self._folder = folder
        self._gpus = tuple(f"gpu-{gpu}" for gpu in sorted(gpus))
        self._held: dict[str, int] = {}
        """Name of a lock → its open file."""

    def enter(self, alone: str = "") -> bool:
        """Take a place everywhere, or all places where this trial is to be `alone` (`gpu`, `node`); False if not yet.

        Where a trial that is to be alone has begun to wait, no other one enters.
        """
        exclusive = {"": (), "gpu": self._gpus or (NODE,), NODE: (NODE, *self._gpus)}[alone]
        entered = all(self._enter(name, name in exclusive) for name in (NODE, *self._gpus))  # always in this order
        if not entered and not alone:
            self.leave()
        return entered

    def leave(self) -> None:
        """Give up the places: after each step, of a trial that is alone after its last."""
        for file in self._held.values():
            os.close(file)
        self._held.clear()

    def _enter(self, name: str, exclusive: bool) -> bool:
        if exclusive:  # and keep others from entering while it waits for those that are in
            return self._lock(f"{name}.turn", fcntl.LOCK_EX) and self._lock(f"{name}.room", fcntl.LOCK_EX)
        if f"{name}.room" in self._held:
            return True
        if not self._lock(f"{name}.turn", fcntl.LOCK_SH):
            return False
        entered = self._lock(f"{name}.room", fcntl.LOCK_SH)
        if (turn := self._held.pop(f"{name}.turn", None)) is not None:  # else this node has no locks
            os.close(turn)
        return entered

    def _lock(self, name: str, how: int) -> bool:
        if name in self._held:
            return True
        try:
            file = os.open(self._folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            return True  # a node without a place for locks has no turns
        try:
            fcntl.flock(file, how | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            return False
        except OSError:
            pass  # nor has a file system without locks
        self._held[name] = file
        return True
