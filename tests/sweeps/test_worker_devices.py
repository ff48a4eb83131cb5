"""Which devices the workers of a sweep see."""

from __future__ import annotations

import os

import pytest

from sweeps.backends.connection import start_ray
from sweeps.backends.lifetime import stop_ray
from sweeps.study.config import Resources


@pytest.mark.slow
def test_a_trial_without_gpus_sees_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else every trial of a machine with one GPU would take it, whatever `gpus_per_trial: 0` says."""
    import ray

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    start_ray("local", Resources(concurrent_trials=1))
    try:

        @ray.remote(num_cpus=1, num_gpus=0)
        class Worker:
            def devices(self) -> str | None:
                return os.environ.get("CUDA_VISIBLE_DEVICES")

        assert ray.get(Worker.remote().devices.remote()) == ""
    finally:
        stop_ray()
