import os

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
