"""Connect to Ray, private or a cluster: what an address means, and how many trials fit on the nodes there are."""

from __future__ import annotations

import logging
import os
import re
import socket
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from sweeps.backends.beforehand import environment_of_workers, started_beforehand, variables_of_the_job
from sweeps.backends.lifetime import left_alone, outlive_raylet, stop_ray
from sweeps.backends.private import LOOPBACK, kept_private, running_nodes
from sweeps.study.config import Resources
from ubt.common import ending
from ubt.common.errors import Problem, UserError
from ubt.common.progress import waiting_for

Node = Mapping[str, float]
"""What a node has, as Ray says it: {"CPU": 8.0, "GPU": 1.0, …}."""


def local_trials(resources: Resources) -> int:
    """Return how many trials the CPUs of this machine allow at a time, of those that this process may use."""
    if resources.concurrent_trials:
        return resources.concurrent_trials
    from joblib import cpu_count  # noqa: PLC0415 — 0.2 s; unlike `os`, it knows affinity and a container's limit

    usable: int = cpu_count()
    return max(1, usable // resources.cpus_per_trial)


def capacity(resources: Resources, nodes: Sequence[Node]) -> int:
    """Return how many trials fit on nodes, each on one of them."""
    return sum(_capacity_of(resources, node) for node in nodes)


def _capacity_of(resources: Resources, node: Node) -> int:
    """Return how many trials fit on one node."""
    trials = int(node.get("CPU", 0) // resources.cpus_per_trial)
    if resources.gpus_per_trial:
        # 1e-9: of what is as good as whole (7 × ⅐), the rounding must not take one.
        trials = min(trials, int(node.get("GPU", 0) / resources.gpus_per_trial + 1e-9))
    return trials


def lacking_gpus(resources: Resources, nodes: Sequence[Node]) -> Problem:
    """Return the mistake of a study whose trials ask for more GPUs than the nodes have."""
    message = f"a trial asks for more GPUs than this machine has: {sum(node.get('GPU', 0) for node in nodes):g}"
    advice = "give 0 to compute on CPUs, or run it on a cluster with GPUs: --address auto, on its head"
    return Problem("resources.gpus_per_trial", message, resources.gpus_per_trial, advice)


def demand(resources: Resources) -> str:
    """Return in words what a trial takes."""
    return f"cpus_per_trial {resources.cpus_per_trial}, gpus_per_trial {resources.gpus_per_trial:g}"


def sum_of(nodes: Sequence[Node]) -> str:
    """Return in words what nodes have together."""
    cpus, gpus = (sum(node.get(name, 0) for node in nodes) for name in ("CPU", "GPU"))
    return f"{cpus:g} CPUs and {gpus:g} GPUs on {len(nodes)} node{'' if len(nodes) == 1 else 's'}"


INLINE, LOCAL, AUTO = "inline", "local", "auto"

ON_THE_HEAD = "ray exec cluster.yaml --tmux 'ubt sweep … --address auto'"

_ANSWER_SECONDS = 5.0
_ADDRESS = re.compile(r"(ray://)?([^\s/:\[\]]+|\[[0-9a-fA-F:.]+\]):\d{1,5}")


def check_address(address: str) -> None:
    """Check that something answers at a cluster's address. Ray itself tries for 30 s, or minutes, before it gives up.

    Raises:
        UserError: if it is no address, or nothing answers there.
    """
    host, _, port = meant(address).removeprefix("ray://").rpartition(":")
    host = host.strip("[]")
    try:
        socket.create_connection((host, int(port)), _ANSWER_SECONDS).close()
    except (OSError, ValueError, OverflowError) as error:  # the latter for what is no host name or no port
        message = f"nothing answers at {host}:{port} ({error})"
        advice = f"is the cluster up, and may this machine reach that port? Or start it on the head: {ON_THE_HEAD}"
        raise UserError(Problem(f"--address {address}", message, advice=advice)) from error


def meant(address: str) -> str:
    """Return the HOST:PORT or ray://HOST:PORT that an address of a cluster stands for.

    Raises:
        UserError: if it stands for none.
    """
    where, named = "--address", address
    if address == AUTO:
        where, named = "$RAY_ADDRESS", os.environ.get("RAY_ADDRESS") or _cluster_of_this_machine()
    if _ADDRESS.fullmatch(named) is None:
        words = f"`{LOCAL}`, `{INLINE}`, `{AUTO}`, " if where == "--address" else ""
        raise UserError(Problem(where, f"must be {words}HOST:PORT or ray://HOST:PORT", named))
    return named


def _cluster_of_this_machine() -> str:
    """Return the HOST:PORT of the one cluster of this user that this machine is a node of.

    Raises:
        UserError: if there is none, or more than one.
    """
    there = [node for node in running_nodes() if not node.private]
    ours = sorted({node.cluster for node in there if node.ours})
    if len(ours) == 1:
        return ours[0]
    others = sorted({f"{node.cluster} of user {node.user}" for node in there if not node.ours})
    advice = f"leave it out to run on this machine alone, or start it on the cluster's head: {ON_THE_HEAD}"
    message = "this machine is no node of a Ray cluster"
    if ours:
        message = f"this machine is a node of {len(ours)} Ray clusters: {', '.join(ours)}"
        advice = "say which: --address HOST:PORT, or $RAY_ADDRESS"
    elif others:
        message += f" of yours. Others run on it: {', '.join(others)}"
        advice += "; if you may use one of the others: --address HOST:PORT, with its token"
    raise UserError(Problem("--address auto", message, advice=advice))


logger = logging.getLogger(__name__)

TRIALS_WAITING = 8
"""Workers asked for beyond those that fit, if these are fewer: they make an autoscaler add nodes."""

_SETTINGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # its TensorBoard logger imports torch into this process
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C reaches us, and we say how to resume
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_DEDUP_LOGS": "0",
    "GRPC_ENABLE_FORK_SUPPORT": "0",  # its handlers crash one in a hundred processes that are forked beside its threads
    "RAY_OVERRIDE_JOB_RUNTIME_ENV": "1",  # what a Ray job sets and we set too is ours, instead of an error
}


def start_ray(address: str, resources: Resources, trials: int = 0) -> int:
    """Connect to Ray, or start a private one, and return how many trials may be expected to run at a time.

    On this machine these are as many as fit; a private Ray starts a worker for each with itself, but no more than there
    are `trials` to be run. On a cluster they are at least `TRIALS_WAITING`, even if it has no node yet. As nodes come
    and go it may be more or fewer; only an adaptive search has to settle on a number.

    Raises:
        UserError: if no cluster answers at the address, or this machine lacks the GPUs that a trial asks for, or
            Ray cannot be started on it.
    """
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    outlive_raylet()
    warnings.filterwarnings("ignore", category=FutureWarning, module="ray")
    with ending.current().held():  # a signal in the middle of Ray's start would end in C++
        import ray  # noqa: F401, PLC0415 — 2 s that `ubt plan` need not wait

        # It says at each start that Ray asks for a token, which is what we want.
        logging.getLogger("ray._private.authentication.authentication_token_setup").setLevel(logging.ERROR)
        with left_alone(), waiting_for("Ray to start"):
            if address == LOCAL:
                _start_private(resources, trials)
            else:
                _join(address, resources)
        there = nodes()
    fitting = capacity(resources, there)
    if address == LOCAL and not fitting:
        stop_ray()
        raise UserError(lacking_gpus(resources, there))
    if not fitting:
        text = "no node of the cluster has capacity for a trial (%s) now, there are %s; trials wait until one is added"
        logger.warning(text, demand(resources), sum_of(there))
    return resources.concurrent_trials or (fitting if address == LOCAL else max(fitting, TRIALS_WAITING))


def nodes() -> list[Node]:
    """Return what each node that is up has."""
    import ray  # noqa: PLC0415

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]


def node_of_actor(actor_id: str, ip: str = "") -> tuple[str, str]:
    """Return what an actor's node is called and Ray's id of it, also once it has died; `ip` and "" if unknown."""
    import ray  # noqa: PLC0415
    from ray._private.state import actors  # noqa: PLC0415 — private, so Ray is pinned: the public way needs its dashboard
    from ray.exceptions import RayError  # noqa: PLC0415

    try:
        node_id = str(actors(actor_id)["Address"]["NodeID"])
        name = node_name(node_id, ray.nodes())  # type: ignore[no-untyped-call]
    except (RayError, OSError, RuntimeError, ValueError, KeyError):
        return ip, ""  # over a Ray client this process cannot ask
    return name or ip, node_id


def node_name(node_id: str, known: Sequence[Mapping[str, Any]]) -> str:
    """Return what a node is called, of those that Ray knows: its host and address; "" if it is none of them.

    Where two that are up have both in common, as two on one machine, the beginning of Ray's id tells them apart.
    """
    places = {
        node["NodeID"]: (node["NodeManagerHostname"], node["NodeManagerAddress"])
        for node in known
        if node["Alive"] or node["NodeID"] == node_id
    }
    if node_id not in places:
        return ""
    host, address = places[node_id]
    alike = list(places.values()).count(places[node_id]) > 1
    more = [*([] if address in {host, LOOPBACK} else [address]), *([node_id[:8]] if alike else [])]
    return f"{host} ({', '.join(more)})" if more else str(host)


_QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": False}


def _start_private(resources: Resources, trials: int = 0) -> None:
    """Start a Ray of our own on this machine.

    Raises:
        UserError: if it does not start: no memory or disk for its object store, ports that may not be opened, …
    """
    import ray  # noqa: PLC0415
    from ray.exceptions import RayError  # noqa: PLC0415

    cpus = local_trials(resources) * resources.cpus_per_trial
    options, environment = dict(_QUIET), environment_of_workers(resources)
    workers = min(trials, _fitting_here(resources, cpus))
    if variables_of_the_job():  # which Ray asks for with each worker: none that is there already has them
        options["runtime_env"], workers = {"env_vars": environment}, 0
    try:
        with kept_private() as private, started_beforehand(workers, environment):
            ray.init(address=LOCAL, num_cpus=cpus, include_dashboard=False, **private, **options)
    except Exception as error:
        # Ray raises a bare one where its processes do not come up in time, as on a machine with much other work.
        if type(error) is not Exception and not isinstance(error, OSError | RuntimeError | ValueError | RayError):
            raise
        advice = "`ubt doctor` looks at the machine; `--address inline` runs the trials in this process, without Ray"
        raise UserError(Problem(f"--address {LOCAL}", f"Ray cannot be started: {error}", advice=advice)) from error


def _fitting_here(resources: Resources, cpus: int) -> int:
    """Return how many trials fit on this machine at a time, as far as that can be seen before Ray has started."""
    from ray._private.accelerators import get_accelerator_manager_for_resource  # noqa: PLC0415 — private, as above

    gpus, count = get_accelerator_manager_for_resource("GPU"), 0
    if gpus and resources.gpus_per_trial:
        count, visible = gpus.get_current_node_num_accelerators(), gpus.get_current_process_visible_accelerator_ids()
        count = count if visible is None else min(count, len(visible))  # as Ray counts them
    return _capacity_of(resources, {"CPU": cpus, "GPU": count})


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
        ray.init(address=meant(address), runtime_env={"env_vars": environment_of_workers(resources)}, **_QUIET)
    except (OSError, RuntimeError, ValueError, RayError) as error:
        advice = (
            "a cluster with a token wants RAY_AUTH_MODE=token and its ~/.ray/auth_token here; ray:// wants the"
            f" head's client port, 10001 by default. Or start it on the head: {ON_THE_HEAD}"
        )
        if "version mismatch" in str(error).lower():
            advice = "Ray and Python must be of one version on all nodes and here: requirements.lock pins Ray's"
        message = f"something answers, but no cluster that can be joined: {error}"
        raise UserError(Problem(f"--address {address}", message, advice=advice)) from error
