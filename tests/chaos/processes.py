"""Processes of one round: found by a mark in their environment, even if their parents have ended."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

MARK = "UBT_CHAOS"
"""Name of the variable that every process of a round inherits, and no other process has."""

ROLES = {
    "worker": "ray::UbtTrainable",
    "idle worker": "ray::IDLE",
    "raylet": "/raylet/raylet",
    "head": "/gcs/gcs_server",
    "agent": "dashboard/agent.py",
    "agent, renamed": "ray::DashboardAgent",
    "runtime agent": "runtime_env/agent/main.py",
    "runtime agent, renamed": "ray::RuntimeEnvAgent",
}
"""What the command of a process of Ray begins with, or has in its first words."""


def environment(mark: str) -> dict[str, str]:
    """Return the environment of a round's processes."""
    # setproctitle would write the title of a Ray worker over the environment that /proc shows.
    return {**os.environ, MARK: mark, "SPT_NOENV": "1", "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


def marked(mark: str, **more: str) -> dict[int, str]:
    """Return process id → command of the round's processes that live, those with these further variables only."""
    wanted = {f"{name}={value}".encode() for name, value in {MARK: mark, **more}.items()}
    found = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        with suppress(OSError):  # it ended meanwhile
            if wanted <= set((folder / "environ").read_bytes().split(b"\0")):
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                if command:
                    found[int(folder.name)] = command
    return found


def of_role(mark: str, role: str, **more: str) -> list[int]:
    """Return the processes that play a role of Ray's, oldest first."""
    words = [text for name, text in ROLES.items() if name.startswith(role)]
    return sorted(pid for pid, command in marked(mark, **more).items() if any(word in command[:300] for word in words))


def kill(pids: Iterator[int] | list[int]) -> list[int]:
    """Kill processes as kill -9 does; those that are gone already are left out of what is returned."""
    killed = []
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)
    return killed


def end_all(mark: str, patience_seconds: float = 20.0) -> list[str]:
    """Kill what is left of a round, until nothing is; return the commands of what was left."""
    left = marked(mark)
    commands = list(left.values())
    deadline = time.monotonic() + patience_seconds
    while left and time.monotonic() < deadline:
        kill(list(left))
        time.sleep(0.1)
        left = marked(mark)
    return commands
