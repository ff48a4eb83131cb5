"""How much memory there is for this process: the machine's, or the limit of a container or a job it runs in."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

_GROUPS, _OWN_GROUP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def memory_bytes(groups: Path = _GROUPS, own: Path = _OWN_GROUP) -> int:
    """Return the smallest of the machine's memory and what Linux allows the groups (cgroup v2) of this process."""
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
