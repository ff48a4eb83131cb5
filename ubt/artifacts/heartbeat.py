"""A process's heartbeat: who it is, and a number that grows as long as it lives. Clocks of nodes are never compared."""

from __future__ import annotations

import os
import platform
from functools import cache
from pathlib import Path

from pydantic import Field, ValidationError

from ubt.config import Config


class Heartbeat(Config):
    """What a process that computes writes down of itself every few seconds."""

    host: str
    pid: int = Field(ge=0, lt=1 << 31)
    kernel: str = ""
    """Which start of which machine, and which of its containers, the process's number belongs to; empty if unknown."""
    started: str = ""
    """When the process started, by the clock of that kernel: numbers are given out again."""
    beat: int = 0
    keys: tuple[str, ...] = ()
    """Keys of the artifacts that the trial it is at consists of."""

    @classmethod
    def read(cls, content: bytes) -> Heartbeat:
        """Return what a process has written; of what cannot be read (empty after a loss of power, say), that it is."""
        try:
            return cls.model_validate_json(content)
        except ValidationError:
            return cls(host="an unknown host", pid=0)

    @property
    def gone(self) -> bool:
        """Tell whether the process has surely ended: only one of this machine can be asked."""
        if not self.kernel or self.kernel != _kernel():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass  # of another user
        state, started = _state_and_start(self.pid)
        return state in {"Z", "X"} or bool(started and started != self.started)


def own_heartbeat() -> Heartbeat:
    """Return the first heartbeat of this process."""
    pid = os.getpid()
    return Heartbeat(host=platform.node(), pid=pid, kernel=_kernel(), started=_state_and_start(pid)[1])


@cache
def _kernel() -> str:
    """Return what tells this machine's processes from those of others; "" where that is not known (macOS)."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:
        return ""


def _state_and_start(pid: int) -> tuple[str, str]:
    """Return a process's state and start as Linux tells them; "" if it does not."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "", ""
    return fields[0], fields[19]
