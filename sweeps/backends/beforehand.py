"""Workers of a Ray of our own that start with it, and import what trials need while the study is made ready.

A worker's imports (torch, open_clip, Ray Tune) are most of a sweep's start. Ray starts workers when it is asked for
them, for each environment anew. Those of a private Ray have one environment: it is given to Ray's own processes, which
pass it on, instead of being asked for with each worker. So workers that are there already fit.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from sweeps.study.config import Resources

logger = logging.getLogger(__name__)

_START_WORKERS, _IMPORT = "RAY_prestart_worker_first_driver", "RAY_preload_python_modules"
_IDLE_MS = "RAY_idle_worker_killing_time_threshold_ms"
"""After so long without work a worker is ended once CPUs are promised to trials, as if there were too many of them: by
default a second, so that which of the two comes first is a matter of luck."""
_COUNT = "--num_prestart_python_workers"


def environment_of_workers(resources: Resources) -> dict[str, str]:
    """Return the environment of workers: one trial's threads in each."""
    threads = str(resources.cpus_per_trial)
    environment = {
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # a trial without GPUs sees none: all would share the first one
    }
    for name, value in variables_of_the_job().items():
        if environment.get(name, value) != value:
            text = "%s=%s of the Ray job is not used: a trial gets %s, as resources.cpus_per_trial says"
            logger.warning(text, name, value, environment[name])
    return environment


def variables_of_the_job() -> dict[str, str]:
    """Return what the Ray job that this process is in, if it is in one, sets in the environment of workers."""
    try:
        job = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR") or "{}")
        return dict((job.get("runtime_env") or {}).get("env_vars") or {})
    except (ValueError, TypeError, AttributeError):
        return {}  # Ray says what is wrong with it


@contextmanager
def started_beforehand(workers: int, environment: Mapping[str, str]) -> Iterator[None]:
    """Have a Ray that is started in the block start so many workers with it, in this environment.

    If there are to be none, no worker imports anything beforehand. By itself Ray starts one for each CPU that it is
    given. That number is private, so Ray is pinned.
    """
    services: Any = import_module("ray._private.services")
    start = services.start_ray_process
    services.start_ray_process = _of_so_many(start, workers)
    wanted = {**environment, _START_WORKERS: "0"}
    if workers:
        wanted |= {_START_WORKERS: "1", _IMPORT: "sweeps.backends.imported", _IDLE_MS: "120000"}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        services.start_ray_process = start
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def taken_by_tune() -> Iterator[None]:
    """Have Tune, in the block, ask for its workers without an environment: with one it gets none that are there."""
    cache: Any = import_module("ray.tune.execution.class_cache")  # private, as above
    names = ("DEFAULT_ENV_VARS", "ENV_VARS_TO_PROPAGATE")
    before = {name: getattr(cache, name) for name in names}
    cache.DEFAULT_ENV_VARS, cache.ENV_VARS_TO_PROPAGATE = {}, set()
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(cache, name, value)


def _of_so_many(start: Callable[..., object], workers: int) -> Callable[..., object]:
    def started(command: list[str], *arguments: object, **options: object) -> object:
        counted = [f"{_COUNT}={workers}" if part.startswith(f"{_COUNT}=") else part for part in command]
        return start(counted, *arguments, **options)

    return started
