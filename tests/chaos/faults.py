"""What may go wrong, each as one small function with a name. They are composed by `rounds`.

A fault that lasts yields for how many seconds; after these, or once all sweeps have ended, it is gone on with and
undoes what it did. What a sweep may end with because of it, it says by `hit`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from hosts import Host
from processes import kill
from scene import Scene, Sweep

Doing = Iterator[float]
STOPPED = {1, 3}
"""Statuses of a sweep that lost trials to a fault, or that one stopped. A resume goes on."""
REFUSED = STOPPED | {2}
"""What is in the way before the first trial is a mistake to a sweep: a store that cannot be written, say."""


@dataclass(frozen=True)
class Fault:
    """One kind of fault."""

    name: str
    do: Callable[[Scene], Doing]
    needs: frozenset[str]
    """What the round must have for it: of `where`'s values, and `mounts`."""


FAULTS: dict[str, Fault] = {}


def fault(name: str, *needs: str) -> Callable[[Callable[[Scene], Doing]], Callable[[Scene], Doing]]:
    """Enter a function under a name."""

    def enter(do: Callable[[Scene], Doing]) -> Callable[[Scene], Doing]:
        FAULTS[name] = Fault(name, do, frozenset(needs))
        return do

    return enter


class Missed(Exception):
    """There was nothing that the fault could have happened to."""


def hit(scene: Scene, statuses: set[int], *sweeps: Sweep) -> None:
    """Note what sweeps may end with because of the fault that happens now.

    If none is named, these are all that run, and those that start while it lasts.
    """
    if not sweeps:
        scene.lasting[-1] |= statuses
    for sweep in sweeps or scene.alive:
        sweep.expected |= statuses


def one_of(scene: Scene) -> Sweep:
    """Return one of the sweeps that run."""
    if not scene.alive:
        raise Missed
    return scene.dice.choice(scene.alive)


# Processes are killed.


@fault("kill -9 of the driver")
def kill_driver(scene: Scene) -> Doing:
    sweep = one_of(scene)
    hit(scene, {-signal.SIGKILL}, sweep)
    os.kill(sweep.pid, signal.SIGKILL)
    yield from ()


def kill_one(scene: Scene, role: str, statuses: set[int]) -> Doing:
    pids = scene.processes(role)
    if not pids:
        raise Missed
    hit(scene, statuses)
    if not kill([scene.dice.choice(pids)]):
        raise Missed
    yield from ()


@fault("kill -9 of a worker", "ray")
def kill_worker(scene: Scene) -> Doing:
    return kill_one(scene, "worker", {1})  # the third time that a trial loses its worker it is lost


@fault("kill -9 of a raylet", "ray")
def kill_raylet(scene: Scene) -> Doing:
    return kill_one(scene, "raylet", REFUSED)


@fault("kill -9 of a Ray agent", "ray")
def kill_agent(scene: Scene) -> Doing:
    return kill_one(scene, scene.dice.choice(("agent", "runtime agent")), REFUSED)


@fault("kill -9 of the head", "ray")
def kill_head(scene: Scene) -> Doing:
    return kill_one(scene, "head", REFUSED)


def a_node(scene: Scene) -> Host:
    """Return a host that is not the head."""
    up = [host for host in scene.hosts[1:] if host.up]
    if not up:
        raise Missed
    return scene.dice.choice(up)


@fault("kill -9 of a node, all at once", "hosts")
def kill_node(scene: Scene) -> Doing:
    """It is there again after a while, as a new node."""
    host = a_node(scene)
    hit(scene, REFUSED)
    host.end()
    yield a_while(scene)
    host.plug_in()  # another fault may have cut it off
    if scene.processes("head"):
        host.begin()
        host.start_ray(scene.hosts[0])


@fault("the network of a node is cut", "hosts")
def cut_network(scene: Scene) -> Doing:
    host = a_node(scene)
    hit(scene, REFUSED)
    host.unplug()
    yield a_while(scene) * 2
    host.plug_in()


# Signals.


def send(scene: Scene, number: signal.Signals, times: int) -> Doing:
    sweep = one_of(scene)
    hit(scene, {128 + number}, sweep)
    to_all = number == signal.SIGINT and scene.dice.random() < 0.5 and not sweep.inside  # as a terminal does for Ctrl-C
    sweep.told = time.monotonic()
    for once in range(times):
        if once:
            time.sleep(scene.dice.uniform(0.0, 3.0))
        with suppress(ProcessLookupError):
            (os.killpg if to_all else os.kill)(sweep.pid, number)
    yield from ()


for _signal in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    for _times, _often in ((1, "once"), (2, "twice")):
        fault(f"{_signal.name} {_often}")(partial(send, number=_signal, times=_times))


STOP_SECONDS = 60.0


@contextmanager
def stopped(pids: list[int]) -> Iterator[None]:
    """Have processes stopped for a while."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


@fault("SIGSTOP of a worker for 60 s", "ray")
def stop_worker(scene: Scene) -> Doing:
    workers = scene.processes("worker")
    if not workers:
        raise Missed
    with stopped([scene.dice.choice(workers)]):
        yield STOP_SECONDS


@fault("SIGSTOP of the driver for 60 s")
def stop_driver(scene: Scene) -> Doing:
    sweep = one_of(scene)
    began = time.monotonic()
    with stopped([sweep.process.pid, sweep.pid]):  # which are the same one, but on a host
        yield STOP_SECONDS
    sweep.paused += time.monotonic() - began


# Disks.


BALLAST = "ballast"
"""The file that fills a disk."""


@contextmanager
def full(disk: Path) -> Iterator[None]:
    """Have a disk filled to its last byte."""
    ballast = disk / BALLAST
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(1 << 16))
    try:
        yield
    finally:
        ballast.unlink()


def a_while(scene: Scene) -> float:
    return scene.dice.uniform(2.0, 15.0)


@fault("the store is full", "mounts", "folder")
def store_full(scene: Scene) -> Doing:
    if not os.access(scene.disk, os.W_OK):
        raise Missed  # it is read-only already, and what fills it could not be removed
    hit(scene, REFUSED)
    with full(scene.disk):
        yield a_while(scene)


@fault("the store is read-only", "mounts", "folder")
def store_read_only(scene: Scene) -> Doing:
    if (scene.disk / BALLAST).exists():
        raise Missed  # it is full already, and what fills it could not be removed
    hit(scene, REFUSED)
    remount = ["mount", "-o", "remount"]
    for _ in range(50):  # it is refused while a file is open for writing
        if not subprocess.run([*remount, "-r", str(scene.disk)], capture_output=True, check=False).returncode:
            break
        time.sleep(0.1)
    else:
        raise Missed
    try:
        yield a_while(scene)
    finally:
        subprocess.run([*remount, "-w", str(scene.disk)], check=True)


@fault("the run folder is full", "mounts")
def runs_full(scene: Scene) -> Doing:
    hit(scene, REFUSED)
    with full(scene.runs):
        yield a_while(scene)


# What lies there is damaged.


def spoil(scene: Scene, path: Path) -> None:
    """Flip a byte, cut the file, or leave nothing of it."""
    content = path.read_bytes()
    how = scene.dice.choice(("flip", "cut", "empty"))
    if how == "flip" and content:
        at = scene.dice.randrange(len(content))
        content = content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :]
    path.write_bytes(content[: len(content) // 2] if how == "cut" else b"" if how == "empty" else content)


def damage_artifacts(scene: Scene, most: int) -> None:
    found = sorted(path for path in scene.seen_store.glob("artifacts/*/*/*") if not path.name.startswith("."))
    if not found:
        raise Missed
    for path in scene.dice.sample(found, scene.dice.randint(1, min(most, len(found)))):
        scene.damaged.add(f"{path.parts[-3]}/{path.parts[-2]}")
        with suppress(FileNotFoundError):
            spoil(scene, path)


@fault("artifacts are damaged during use", "folder")
def damage_during_use(scene: Scene) -> Doing:
    one_of(scene)
    damage_artifacts(scene, 4)
    yield from ()


@fault("artifacts are damaged before use", "folder")
def damage_before_use(scene: Scene) -> Doing:
    """Between two sweeps: the one that runs is killed first."""
    for sweep in scene.alive:
        hit(scene, {-signal.SIGKILL}, sweep)
        os.kill(sweep.pid, signal.SIGKILL)
        sweep.process.wait()
    damage_artifacts(scene, 8)
    yield from ()


@fault("the tracking database is damaged", "sqlite")
def damage_database(scene: Scene) -> Doing:
    database = scene.runs / "mlflow.db"
    if not database.exists():
        raise Missed
    spoil(scene, database)
    yield from ()


# Servers.


@fault("the MLflow server is killed", "server")
def mlflow_killed(scene: Scene) -> Doing:
    server = scene.services.mlflow
    server.kill()
    yield a_while(scene)
    server.start()


def misbehaving(scene: Scene, mode: str) -> Doing:
    proxy = scene.services.mlflow.proxy
    proxy.mode = mode
    try:
        yield a_while(scene) * 2
    finally:
        proxy.mode = "pass"


@fault("the MLflow server is slow", "server")
def mlflow_slow(scene: Scene) -> Doing:
    return misbehaving(scene, "slow")


@fault("the MLflow server answers 500", "server")
def mlflow_500(scene: Scene) -> Doing:
    return misbehaving(scene, "500")


@fault("the MLflow server answers 401", "server")
def mlflow_401(scene: Scene) -> Doing:
    return misbehaving(scene, "401")


@fault("the S3 server is killed", "s3")
def s3_killed(scene: Scene) -> Doing:
    hit(scene, REFUSED)
    server = scene.services.s3
    server.kill()
    yield a_while(scene)
    server.start()


@fault("PostgreSQL is killed", "postgres")
def postgres_killed(scene: Scene) -> Doing:
    server = scene.services.postgres
    server.kill()
    yield a_while(scene)
    server.start()


# Other sweeps.


@fault("a second sweep starts on the same store")
def second_sweep(scene: Scene) -> Doing:
    if len({sweep.name for sweep in scene.sweeps}) > 1:
        raise Missed
    scene.start(f"{scene.name}-other")
    yield from ()
