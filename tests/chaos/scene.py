"""Where a round plays: its study, its sweeps as processes, its disks, and what is seen of them from outside."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from hosts import PORT, Host, cluster, hosts
from processes import end_all, environment, of_role
from proxy import Proxy
from services import BUCKET, Services

from ubt.artifacts.manifest import MANIFEST_FILE

UBT = [sys.executable, "-c", "from sweeps.cli.start import main; main()"]
STUDY: dict[str, Any] = {
    "victim": {
        "data": {"kind": "scenes", "pretrain_pairs": 256, "train_pairs": 256, "val_images": 48, "test_images": 48},
        "model": {"name": "tiny-rn"},
        "pretrain": {"epochs": 1, "batch_size": 64},
        "attack": {"kind": "badnets", "poison_rate": 0.1},
        "implant": {"epochs": 1, "batch_size": 64, "min_asr": 0},
    },
    "defense": {
        "kind": "ubt",
        "suspicious_ratio": 0.2,
        "overfit_epochs": 1,
        "unlearn_samples": 16,
        "unlearn_epochs": 2,
        "retain_batch_size": 32,
    },
    "resources": {"concurrent_trials": 2},
    "seeds": [0, 1],
}
HOST = "UBT_CHAOS_HOST"
"""Variable of all that runs on one host."""
SPACE = {"defense.overfit_epochs": [1, 2], "defense.token_threshold": [0.05, 0.1]}
SEARCHES: dict[str, dict[str, Any]] = {
    "grid": {"design": "grid", "space": SPACE},
    "optuna": {"design": "optuna", "space": SPACE, "n_trials": 4, "startup_trials": 2},
}
TRIALS = 8
"""Of either search: four configurations, two seeds."""


@dataclass
class Sweep:
    """One `ubt sweep` from its start to its end."""

    name: str
    process: subprocess.Popen[str]
    started: float = field(default_factory=time.monotonic)
    lines: list[tuple[float, str]] = field(default_factory=list)
    hit_by: list[str] = field(default_factory=list)
    """Names of the faults that it met."""
    expected: set[int] = field(default_factory=lambda: {0})
    """Statuses that it may end with, after these."""
    paused: float = 0.0
    """Seconds that it was stopped for, and could print nothing."""
    told: float = 0.0
    """When it was told to end; 0 if it was not."""
    ended: float = 0.0
    inside: bool = False
    """It runs on a host: the process that we have only waits for it, and ends as it does."""

    @property
    def pid(self) -> int:
        """Return the sweep's own process."""
        if self.inside:
            children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
            with suppress(OSError):
                if found := children.read_text().split():
                    return int(found[0])
        return self.process.pid

    @property
    def alive(self) -> bool:
        """Tell whether it runs."""
        return self.process.poll() is None

    @property
    def output(self) -> str:
        """Return what it has printed."""
        return "".join(line for _, line in self.lines)

    @property
    def quiet_seconds(self) -> float:
        """Return the longest time that it printed nothing, without what it was stopped for."""
        times = [self.started, *(at for at, _ in self.lines), self.ended or time.monotonic()]
        return max(later - earlier for earlier, later in pairwise(times)) - self.paused


class Scene:
    """One round's place in the world."""

    def __init__(self, name: str, folder: Path, given: Services, dice: random.Random, where: dict[str, str]) -> None:
        self.name, self.folder, self.services, self.dice, self.where = name, folder, given, dice, where
        self.runs, self.disk = folder / "runs", folder / "disk"
        self.study = folder / "study.yaml"
        self.sweeps: list[Sweep] = []
        self.damaged: set[str] = set()
        """`stage/key` of artifacts that a fault damaged: they may be computed again."""
        self.published: dict[str, dict[str, float]] = {}
        """`stage/key` → content of each description seen there → when it was seen first."""
        self.lasting: list[set[int]] = []
        """Of each fault that lasts: the statuses that a sweep may end with because of it."""
        self.hosts: list[Host] = []
        self._watching = threading.Event()
        self._tracking_uri: str | None = None
        self._s3_at = ""

    @contextmanager
    def set_up(self) -> Iterator[Scene]:
        """Make disks and study, watch the store, and clear away what is left at the end."""
        with ExitStack() as held:
            for disk in (self.runs, self.disk):
                disk.mkdir(parents=True)
                if self.mounts:
                    held.enter_context(tmpfs(disk))
            if self.on_hosts:
                self.hosts = held.enter_context(
                    hosts(self.folder / "hosts", int(self.where["address"][0]), mark=environment(self.name))
                )
            self._connect(held)
            self.study.write_text(yaml.safe_dump({"name": self.name, **self._study()}, sort_keys=False))
            held.callback(self._watching.set)
            threading.Thread(target=self._watch, daemon=True).start()
            held.callback(end_all, self.name)
            yield self

    def _connect(self, held: ExitStack) -> None:
        """Find out where the servers are, as the sweep sees them."""
        tracking = self.where["tracking"]
        if tracking == "postgres":
            self._tracking_uri = self.services.postgres.new_database()
        if tracking == "server":
            self._tracking_uri = f"http://{self._seen(held, self.services.mlflow.proxy.port)}"
        if self.where["store"] == "s3":
            self._s3_at = self._seen(held, self.services.s3.port)

    def _seen(self, held: ExitStack, port: int) -> str:
        """Return the address of a server of this machine; hosts reach it on their bridge only."""
        if not self.hosts:
            return f"127.0.0.1:{port}"
        gateway = self.hosts[0].address.rpartition(".")[0] + ".1"
        proxy = Proxy(port, gateway)
        held.callback(proxy.close)
        return f"{gateway}:{proxy.port}"

    @property
    def on_hosts(self) -> bool:
        """Tell whether the sweep runs on a cluster of hosts."""
        return self.where["address"].endswith(" hosts")

    @property
    def mounts(self) -> bool:
        """Tell whether disks of the round's own can be had."""
        return os.geteuid() == 0

    @property
    def store(self) -> str:
        """The store's address."""
        return f"s3://{BUCKET}/{self.name}" if self.where["store"] == "s3" else str(self.disk / "store")

    @property
    def seen_store(self) -> Path:
        """Where the store's files can be looked at from outside."""
        return self.services.s3.folder / self.name if self.where["store"] == "s3" else self.disk / "store"

    @property
    def alive(self) -> list[Sweep]:
        """Return the sweeps that run."""
        return [sweep for sweep in self.sweeps if sweep.alive]

    @property
    def progress(self) -> int:
        """How many artifacts there are."""
        return len(self.published)

    def run_folder(self, name: str) -> Path:
        """Return the run folder of a sweep."""
        return self.runs / name

    def start(self, name: str) -> Sweep:
        """Start a sweep, or go on with it."""
        words = [*UBT, "sweep", str(self.study), "--name", name, "--out", str(self.runs), "--resume=auto"]
        words += ["--address", f"{self.hosts[0].address}:{PORT}" if self.hosts else self.where["address"]]
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "start_new_session": True}
        if self.hosts:
            self.mend_cluster()
            process = self.hosts[0].start(*words, **options)
        else:
            process = subprocess.Popen(
                words, text=True, errors="replace", env={**environment(self.name), **self._variables}, **options
            )
        sweep = Sweep(name, process, inside=bool(self.hosts))
        for statuses in self.lasting:  # 2: what is in the way before the first trial is told as a mistake
            sweep.expected |= statuses | {2} if statuses else set()
        self.sweeps.append(sweep)
        threading.Thread(target=self._read, args=(sweep,), daemon=True).start()
        return sweep

    def track(self, name: str) -> str:
        """Run `ubt track`; return what it says if it fails."""
        words = [
            *UBT,
            "track",
            str(self.run_folder(name)),
            *(["--uri", self.tracking_uri] if self.tracking_uri else []),
        ]
        done = subprocess.run(words, text=True, capture_output=True, env=environment(self.name), check=False)
        return f"ubt track ends with {done.returncode}: {done.stdout}{done.stderr}" if done.returncode else ""

    @property
    def _variables(self) -> dict[str, str]:
        return self.services.s3.environment(self._s3_at) if self._s3_at else {}

    def mend_cluster(self) -> None:
        """Have Ray run on every host again; on all anew if the head is lost."""
        head = self.hosts[0]
        for host in self.hosts:
            host.environment.update({**self._variables, HOST: host.name})
        if not self._is_up(head, ("raylet", "head")):
            for host in self.hosts:
                host.end()
                host.begin()
            cluster(self.hosts)
            return
        for host in self.hosts[1:]:
            if not self._is_up(host, ("raylet",)):
                host.end()
                host.begin()
                host.start_ray(head)

    def _is_up(self, host: Host, roles: tuple[str, ...]) -> bool:
        return host.up and all(of_role(self.name, role, **{HOST: host.name}) for role in roles)

    def processes(self, role: str) -> list[int]:
        """Return the processes of the round that play a role of Ray's."""
        return of_role(self.name, role)

    def _study(self) -> dict[str, Any]:
        return {
            **STUDY,
            "search": SEARCHES[self.where["search"]],
            "store": self.store,
            "tracking": {"experiment": self.name, **({"uri": uri} if (uri := self.tracking_uri) else {})},
        }

    @property
    def tracking_uri(self) -> str | None:
        """MLflow's address; None for the database beside the run folder."""
        return self._tracking_uri

    def _read(self, sweep: Sweep) -> None:
        assert sweep.process.stdout is not None
        with (self.folder / f"{len(self.sweeps)}-{sweep.name}.log").open("w") as log:
            for line in sweep.process.stdout:
                sweep.lines.append((at := time.monotonic(), line))
                log.write(f"{at - sweep.started:7.1f} {line}")
                log.flush()

    def _watch(self) -> None:
        while not self._watching.wait(0.2):
            for path in self.seen_store.glob(f"artifacts/*/*/{MANIFEST_FILE}"):
                with suppress(OSError):
                    name = f"{path.parts[-3]}/{path.parts[-2]}"
                    self.published.setdefault(name, {}).setdefault(path.read_text(errors="replace"), time.monotonic())


@contextmanager
def tmpfs(folder: Path, size: str = "600m") -> Iterator[None]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
