"""How much memory there is for this process, and giving back what it no longer needs."""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from pathlib import Path

_GROUPS, _OWN_GROUP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def return_freed_memory() -> None:
    """Give memory that was freed back to the machine, where the C library can be asked to (glibc).

    By itself it keeps what lies between things still in use: once some large model has been freed, tensors of up to
    32 MB are put between small ones, and a process grows to the sum of what its trials needed one after the other.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def memory_bytes(groups: Path = _GROUPS, own: Path = _OWN_GROUP) -> int:
    """Return the smallest of the machine's memory and what Linux allows the groups (cgroup v2) of this process.

    Those are a container's or a job's limits.
    """
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    with suppress(OSError):
        for line in own.read_text().splitlines():
            number, _, name = line.partition("::")
            if number != "0":
                continue
            folder = groups / name.strip("/")
            limits += [found for each in (folder, *folder.parents) if (found := _limit(each))]
    return min(limits)


def _limit(group: Path) -> int:
    """Return a group's limit; 0 if it has none."""
    with suppress(OSError, ValueError):  # the latter for `max`
        return int((group / "memory.max").read_text())
    return 0
