"""How much memory there is for this process, and giving back what it no longer needs."""

from __future__ import annotations

import ctypes
import mmap
import os
from contextlib import suppress
from pathlib import Path
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

_GROUPS, _OWN_GROUP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def return_freed_memory() -> None:
    """Give memory that was freed back to the machine, where the C library can be asked to (glibc).

    By itself it keeps what lies between things still in use: once some large model has been freed, tensors of up to
    32 MB are put between small ones, and a process grows to the sum of what its trials needed one after the other.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


_AT_ONCE = 64 * 2**10
"""Bytes that Linux maps for the least that is read of a file."""
_MAPPED_BYTES = 256 * 2**20


class MappedReads:
    """Lets the pages of a mapped file go each time a quarter of a gigabyte of it may have become this process's.

    They stay in the system's cache of files, from where the next read maps them again. Else a process that reads
    through all images of a data set has as much resident memory as they have bytes, and a job's limit counts it.
    """

    def __init__(self, most: int = _MAPPED_BYTES) -> None:
        self._most = most
        self._read: WeakKeyDictionary[mmap.mmap, int] = WeakKeyDictionary()

    def note(self, array: NDArray[np.uint8], rows: int) -> None:
        """Take note of so many rows that were read of an array, which may be a mapped file or not."""
        file = _mapping(array)
        if file is None or getattr(array, "mode", "") != "r" or not len(array):
            return
        read = self._read.get(file, 0) + rows * max(_AT_ONCE, array[0].nbytes)
        if read >= self._most:
            let_go(array)
        self._read[file] = read if read < self._most else 0


MAPPED_READS = MappedReads()
"""Of this process."""


def let_go(array: NDArray[np.uint8]) -> None:
    """Leave the pages of a mapped file to the system, which has them on disk; what is written to it stays."""
    file = _mapping(array)
    if file is not None and hasattr(mmap, "MADV_DONTNEED"):
        file.madvise(mmap.MADV_DONTNEED)


def _mapping(array: NDArray[np.uint8]) -> mmap.mmap | None:
    """Return what an array, or the one that it is a part of, is mapped by; None if it is in memory."""
    return getattr(array, "_mmap", None)


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
