import os
import platform
import subprocess
import sys

import pytest

from ubt.common.memory import memory_bytes

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
