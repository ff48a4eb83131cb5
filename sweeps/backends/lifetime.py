"""Ray in this process: started so that it leaves the process alone, and left within a time."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import psutil

logger = logging.getLogger(__name__)

_HEAD_LOST = "RAY_gcs_rpc_server_reconnect_timeout_s"
"""After so long without its head Ray ends this process from C++. We notice earlier, and want to write a report."""

_RAYLET = "RAY_RAYLET_PID"
"""The process that this one may not outlive; by default its parent, which counts as gone if it is process 1."""


def stop_ray(within_seconds: float = 30.0) -> None:
    """Leave the cluster, or end the private one; what has not ended in that time is killed."""
    leave_ray()(within_seconds)


def leave_ray() -> Callable[[float], None]:
    """Begin to leave the cluster, or to end the private one; return what waits for that, so many seconds at most.

    What has not ended then is killed.
    """
    import psutil  # noqa: PLC0415
    import ray  # noqa: PLC0415

    started = [child for process in _started_processes() for child in _with_descendants(process)]
    worker: Any = import_module("ray._private.worker").global_worker  # private: no public way
    if hasattr(worker, "core_worker"):  # not over a Ray client
        worker.core_worker = Leaving(worker.core_worker)
    leaving = threading.Thread(target=ray.shutdown, name="ubt-leaves-ray", daemon=True)
    leaving.start()

    def wait(within_seconds: float) -> None:
        leaving.join(within_seconds)
        for process in started:
            with suppress(psutil.Error):
                process.kill()

    return wait


class Leaving:
    """Stands before Ray's part of this process in C++ while the process leaves, and keeps from it what is freed then.

    The main thread, which has waited long enough, goes on beside the thread that leaves. A reference to an object that
    it frees when that part is gone would end this process at once, with status 1 and without a word.
    """

    def __init__(self, core_worker: object) -> None:
        self._core_worker = core_worker

    def __getattr__(self, name: str) -> object:
        """Pass on all else, the order to leave for one."""
        return getattr(self._core_worker, name)

    def remove_object_ref_reference(self, reference: object) -> None:
        """Nothing: a result is not needed here any more, and its owner leaves."""

    def remove_actor_handle_reference(self, actor: object) -> None:
        """Nothing, likewise: an actor that no other process needs ends with its owner."""


def _started_processes() -> list[int]:
    """Return the ids of the processes of a Ray of our own."""
    node: Any = getattr(import_module("ray._private.worker"), "_global_node", None)  # private: no public way
    return [info.process.pid for infos in node.all_processes.values() for info in infos] if node else []


def _with_descendants(pid: int) -> list[psutil.Process]:
    """Return a process and all that it has started, workers for one: those that outlive it have no parent to ask."""
    import psutil  # noqa: PLC0415

    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []


def _told(data: dict[str, Any], *_: object, **__: object) -> None:
    logger.debug("Ray: %s", "\n".join(map(str, data.get("lines", ()))))


def outlive_raylet() -> None:
    """Keep a lost raylet from ending this process from C++; before Ray is imported, which reads this once.

    A process that has no parent any more (of `nohup ubt sweep &` whose terminal was closed), or that a Ray job started,
    would end with its next word to that raylet, with status 1 and in silence: Ray takes it for one of its workers,
    which are of no use without their raylet. What Ray starts itself gets the true number.
    """
    os.environ[_RAYLET] = str(os.getpid())


@contextmanager
def left_alone() -> Iterator[None]:
    """Keep signals and a lost head out of Ray's hands, as far as it would end this process from C++ for them.

    What of Ray is named here is private (and Ray pinned): in public there is one of the three, a variable that has
    to be set before Ray is imported.
    """
    modules: list[Any] = [import_module(f"ray._private.{name}") for name in ("ray_constants", "utils", "worker")]
    constants, utils, worker = modules
    of_sigterm, connect = utils.set_sigterm_handler, worker.connect

    def patient_connect(*args: object, **options: object) -> object:
        os.environ[_HEAD_LOST] = "600"  # now: it is for this process, and those of a Ray of our own are started
        try:
            return connect(*args, **options)
        finally:
            del os.environ[_HEAD_LOST]

    constants.RAY_DISABLE_FAILURE_SIGNAL_HANDLER = True  # which answers SIGTERM with a stack
    worker.print_to_stdstream = _told  # the last lines of a raylet's log, say, of one that has ended
    utils.set_sigterm_handler, worker.connect = lambda handler: None, patient_connect
    try:
        yield
    finally:
        utils.set_sigterm_handler, worker.connect = of_sigterm, connect
