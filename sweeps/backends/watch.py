"""Notices that Ray's head, this machine's part of it, or the connection is gone: Tune would wait for ever."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from typing import Any

from ubt.common.ending import Ending
from ubt.common.exits import Cause, Exit

Look = Callable[[], str]
"""Says what is gone for good, or nothing if all is there; raises what `unanswered` says if no process answers."""

PAUSE_SECONDS, ANSWER_SECONDS, SILENT_SECONDS = 3.0, 5.0, 16.0
"""Between two looks; for an answer; without any, until it counts as lost. Together they stay below 30 s."""


@contextmanager
def watched(ending: Ending) -> Iterator[None]:
    """End the sweep, from a thread, when Ray is lost; this process has to be connected to it."""
    look, unanswered = _look_here()
    over = threading.Event()
    watch = Watch(look, unanswered, over.wait)
    lost = partial(ending.ask_or_end, within_seconds=ANSWER_SECONDS)  # the main thread may wait for the head in C++
    thread = threading.Thread(target=watch.run, args=(lost,), name="ubt-watches-ray", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()


class Watch:
    """Looks again and again."""

    def __init__(
        self,
        look: Look,
        unanswered: tuple[type[Exception], ...],
        pause: Callable[[float], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare; `pause` waits for so many seconds, or returns True at once when the watch is over."""
        self._look, self._unanswered = look, unanswered
        self._pause, self._clock = pause, clock

    def run(self, lost: Callable[[Cause], None]) -> None:
        """Look until it is over or Ray is lost, which is told once."""
        silent_seconds = 0.0
        while not self._pause(PAUSE_SECONDS):
            began = self._clock()
            try:
                gone, silent_seconds = self._look(), 0.0
            except self._unanswered as error:
                took = min(self._clock() - began, ANSWER_SECONDS)  # if it was more, this process was stopped meanwhile
                silent_seconds += PAUSE_SECONDS + took
                silent = silent_seconds >= SILENT_SECONDS
                gone = f"it does not answer any more ({_first_line(error)})" if silent else ""
            if gone:
                lost(Cause(f"Ray was lost: {gone}", Exit.FAULT))
                return


def _first_line(error: Exception) -> str:
    details = getattr(error, "details", None)  # gRPC's errors say what happened there, and much else in their text
    text = str(details() if callable(details) else error).strip()
    return (text or type(error).__name__).splitlines()[0]


def _look_here() -> tuple[Look, tuple[type[Exception], ...]]:
    """Return how this process looks at the Ray that it is connected to."""
    import grpc  # noqa: PLC0415
    import ray  # noqa: PLC0415
    from ray.exceptions import RayError  # noqa: PLC0415

    client: Any = ray.util.client.ray
    look = _over_client(client) if client.is_connected() else _as_node()
    return look, (RayError, grpc.RpcError, OSError, RuntimeError)


def _over_client(client: Any) -> Look:  # noqa: ANN401 — Ray has no types here
    info: Any = import_module("ray.core.generated.ray_client_pb2").ClusterInfoType
    worker = client.get_context().client_worker

    def look() -> str:
        worker.get_cluster_info(info.CLUSTER_RESOURCES, timeout=ANSWER_SECONDS)  # which asks the cluster's head
        return ""

    return look


def _as_node() -> Look:
    module: Any = import_module("ray._private.worker")  # private: there is no public way to ask with a time limit
    node, worker = module._global_node, module.global_worker
    host, _, port = node.gcs_address.rpartition(":")
    head = host.strip("[]"), int(port)
    here = worker.core_worker.get_current_node_id()
    ours = {name: node.all_processes.get(name, []) for name in ("gcs_server", "raylet")}

    def look() -> str:
        for name, infos in ours.items():
            if any(info.process.poll() is not None for info in infos):
                return f"its process `{name}` on this machine has ended (killed, or out of memory?)"
        socket.create_connection(head, ANSWER_SECONDS).close()  # Ray's client may wait for a head that is gone
        (alive,) = worker.gcs_client.check_alive([here], timeout=ANSWER_SECONDS)
        return "" if alive else "its head takes this machine's node for dead (its raylet or an agent of it has ended?)"

    return look
