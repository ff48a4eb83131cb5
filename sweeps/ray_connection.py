"""Connect to Ray: a private one on this machine, or a cluster that is there. `sweeps.address` says which."""

from __future__ import annotations

import logging
import os
import warnings
from typing import Any

from sweeps.address import LOCAL, ON_THE_HEAD, check_address
from sweeps.room import Node, demand, lacking_gpus, local_trials, room_for_trials, sum_of
from sweeps.study import Resources
from ubt.errors import Problem, UserError

logger = logging.getLogger(__name__)

TRIALS_WAITING = 8
"""Trials handed to a cluster at a time, if fewer have room: those that wait make an autoscaler add nodes."""

_SETTINGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # its TensorBoard logger imports torch into this process
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C reaches us, and we say how to resume
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_DEDUP_LOGS": "0",
    "GRPC_ENABLE_FORK_SUPPORT": "0",  # its handlers crash one in a hundred processes that are forked beside its threads
}


def start_ray(address: str, resources: Resources) -> int:
    """Connect to Ray, or start a private one, and return how many trials to hand to it at a time.

    On this machine these are as many as fit. A cluster gets at least `TRIALS_WAITING`, even if it has no node
    yet: Ray queues those without room, and an autoscaler adds nodes for them. For one that grows further,
    `resources.concurrent_trials` says how far.

    Raises:
        UserError: if no cluster answers at the address, or this machine lacks the GPUs that a trial asks for, or
            Ray cannot be started on it.
    """
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    warnings.filterwarnings("ignore", category=FutureWarning, module="ray")
    import ray  # noqa: F401, PLC0415 — 2 s that `ubt plan` need not wait

    # It says at each start that Ray asks for a token, which is what we want.
    logging.getLogger("ray._private.authentication.authentication_token_setup").setLevel(logging.ERROR)
    if address == LOCAL:
        _start_private(resources)
    else:
        _join(address, resources)
    there = nodes()
    room = room_for_trials(resources, there)
    if address == LOCAL and not room:
        stop_ray()
        raise UserError(lacking_gpus(resources, there))
    if not room:
        text = "no node of the cluster has room for a trial (%s) now, there are %s; trials wait until one is added"
        logger.warning(text, demand(resources), sum_of(there))
    return resources.concurrent_trials or (room if address == LOCAL else max(room, TRIALS_WAITING))


def stop_ray() -> None:
    """Leave the cluster, or end the private one."""
    import ray  # noqa: PLC0415

    ray.shutdown()


def nodes() -> list[Node]:
    """Return what each node that is up has."""
    import ray  # noqa: PLC0415

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]


def _options(resources: Resources) -> dict[str, Any]:
    """Return what every start of Ray is given: quiet, and one trial's threads in each worker."""
    threads = str(resources.cpus_per_trial)
    environment = {
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # a trial without GPUs sees none: all would share the first one
    }
    return {
        "runtime_env": {"env_vars": environment},
        "log_to_driver": False,
        "logging_level": logging.ERROR,
        "configure_logging": False,
    }


def _start_private(resources: Resources) -> None:
    """Start a Ray of our own on this machine.

    Raises:
        UserError: if it does not start: no memory or disk for its object store, ports that may not be opened, …
    """
    import ray  # noqa: PLC0415
    from ray.exceptions import RayError  # noqa: PLC0415

    cpus = local_trials(resources) * resources.cpus_per_trial
    try:
        ray.init(address=LOCAL, num_cpus=cpus, include_dashboard=False, **_options(resources))
    except (OSError, RuntimeError, ValueError, RayError) as error:
        advice = "`ubt doctor` looks at the machine; `--address inline` runs the trials in this process, without Ray"
        raise UserError(Problem(f"--address {LOCAL}", f"Ray cannot be started: {error}", advice=advice)) from error


def _join(address: str, resources: Resources) -> None:
    """Join a running cluster.

    Raises:
        UserError: if that is not possible, with what may be wrong.
    """
    check_address(address)
    import ray  # noqa: PLC0415
    from ray.exceptions import RayError  # noqa: PLC0415

    warnings.filterwarnings("ignore", "Ray Client connection timed out", UserWarning)  # the error says it
    try:
        ray.init(address=address, **_options(resources))
    except (OSError, RuntimeError, ValueError, RayError) as error:
        advice = (
            "a cluster with a token wants RAY_AUTH_MODE=token and its ~/.ray/auth_token here; ray:// wants the"
            f" head's client port, 10001 by default. Or start it on the head: {ON_THE_HEAD}"
        )
        message = f"something answers, but no cluster that can be joined: {error}"
        raise UserError(Problem(f"--address {address}", message, advice=advice)) from error
