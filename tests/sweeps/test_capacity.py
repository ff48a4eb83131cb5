"""How many trials fit on this machine: those CPUs count that this process may use."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from sweeps.backends.connection import local_trials
from sweeps.study.config import Resources
from ubt.data.images import Decoders


@pytest.fixture
def bound_to_one(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Bind this thread to one CPU of a machine that says it has 64, as a container or `taskset` does."""
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system binds no process to CPUs")
@pytest.mark.usefixtures("bound_to_one")
class TestBound:
    def test_trials_get_the_cpus_there_are_for_this_process(self) -> None:
        assert local_trials(Resources()) == 1
        assert local_trials(Resources(cpus_per_trial=4)) == 1

    def test_what_is_asked_for_is_given(self) -> None:
        assert local_trials(Resources(concurrent_trials=3)) == 3

    def test_images_are_decoded_by_as_many_processes(self) -> None:
        with Decoders(None) as decoders:
            assert decoders._processes == 1
        with Decoders(3) as decoders:
            assert decoders._processes == 3
