import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ubt.common.memory import MappedReads, memory_bytes

MACHINE = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def test_memory_is_what_the_narrowest_group_allows(tmp_path):
    own = tmp_path / "own"
    own.write_text("1:name=systemd:/other\n0::/job/step\n")
    (tmp_path / "groups" / "job" / "step").mkdir(parents=True)
    (tmp_path / "groups" / "job" / "memory.max").write_text("1000000\n")
    (tmp_path / "groups" / "job" / "step" / "memory.max").write_text("max\n")
    assert memory_bytes(tmp_path / "groups", own) == 1_000_000


def test_memory_is_the_machines_where_nothing_limits_it(tmp_path):
    assert memory_bytes(tmp_path, tmp_path / "none") == MACHINE
    assert memory_bytes() <= MACHINE


GROWN = """
import os
from ubt.common.memory import return_freed_memory

def mapped() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

bytearray(31 << 20)  # freed at once: from now on blocks of up to so much lie on the heap
blocks = [bytearray(16 << 20) for _ in range(20)]
last = bytearray(1 << 20)  # above them
before = mapped()
del blocks
kept = mapped()
return_freed_memory()
print(before - kept, kept - mapped())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is another one")
def test_freed_memory_below_something_in_use_is_given_back():
    program = subprocess.run([sys.executable, "-c", GROWN], capture_output=True, text=True, check=True)
    freed_by_itself, given_back = map(int, program.stdout.split())
    assert freed_by_itself < 100 << 20, "then this function is not needed any more"
    assert given_back > 300 << 20


def mapped_bytes() -> int:
    with Path("/proc/self/status").open() as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssFile:"))


@pytest.mark.skipif(platform.system() != "Linux", reason="looks into /proc")
@pytest.mark.parametrize("letting_go", [False, True])
def test_of_a_mapped_file_that_is_read_through_little_stays_in_memory(tmp_path, letting_go):
    images = np.lib.format.open_memmap(tmp_path / "images.npy", mode="w+", dtype=np.uint8, shape=(1000, 64, 1024))
    images[:] = np.arange(1000).astype(np.uint8)[:, None, None]
    images.flush()
    del images
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    reads = MappedReads(8 << 20 if letting_go else 1 << 40)
    before = mapped_bytes()
    sums = []
    for start in range(0, 1000, 10):
        sums.append(int(mapped[start : start + 10].sum()))
        reads.note(mapped, 10)
    grown = mapped_bytes() - before
    assert grown < 16 << 20 if letting_go else grown > 48 << 20
    assert sum(sums) == (3 * sum(range(256)) + sum(range(1000 - 768))) * 65536


def test_what_is_in_memory_or_may_be_changed_is_left_alone(tmp_path):
    np.save(tmp_path / "images.npy", np.zeros((4, 8), dtype=np.uint8))
    mapped = np.load(tmp_path / "images.npy", mmap_mode="c")
    mapped[:] = 7  # this process's own: to let its pages go would undo it
    reads = MappedReads(1)
    reads.note(mapped, 4)
    reads.note(np.zeros((4, 8), dtype=np.uint8), 4)
    assert mapped.min() == 7
