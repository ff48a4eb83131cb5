"""A real Slurm on one machine: Debian's, with three nodes, each a host of its own (`hosts.py`), the first one controls.

Nodes have four CPUs and two GPUs, which are pretended: devices that lead nowhere. Everything that Slurm and its jobs
start on a node ends with its host.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import hosts as host_module
from hosts import Host, hosts

NODES = 3
CPUS, GPUS = 4, 2
PATIENCE_SECONDS = 420.0
FREEZER = Path("/sys/fs/cgroup/freezer")
_PATH = os.environ["PATH"] + ":/usr/sbin:/sbin"
_TOOLS = ("munged", "slurmctld", "slurmd", "sbatch", "scancel", "scontrol", "srun")
_CONF = """\
ClusterName=test
SlurmctldHost={first.name}({first.address})
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={root}/munge.socket,cred_expire=5
CryptoType=crypto/munge
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool/%n
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd-%n.pid
SlurmctldLogFile={root}/log/slurmctld.log
SlurmdLogFile={root}/log/slurmd-%n.log
ProctrackType=proctrack/{tracked}
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
GresTypes=gpu
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
MailProg=/bin/true
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=30
SchedulerParameters=sched_interval=2,batch_sched_delay=0
{nodes}
PartitionName=main Nodes=host-[1-{count}] Default=YES MaxTime=INFINITE OverSubscribe=NO State=UP
"""


def why_not() -> str:
    """Return why there can be no Slurm here; empty if there can."""
    lacking = [tool for tool in _TOOLS if shutil.which(tool, path=_PATH) is None]
    if lacking:
        packages = "slurmctld slurmd slurm-client munge"
        return f"Slurm is not installed: no {', '.join(lacking)} (Debian: apt-get install {packages})"
    return host_module.why_not()


@dataclass
class Slurm:
    """A Slurm that runs."""

    root: Path
    nodes: list[Host]
    environment: dict[str, str] = field(default_factory=dict)

    def call(self, *words: str, folder: Path | None = None, **variables: str) -> str:
        """Run one of Slurm's commands; return what it prints.

        Raises:
            RuntimeError: if it fails.
        """
        environment = {**os.environ, **self.environment, **variables}
        done = subprocess.run(
            words, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(words)} ended with {done.returncode}: {done.stderr}{done.stdout}")
        return done.stdout

    def submit(self, folder: Path, *words: str, **variables: str) -> Job:
        """Submit a job from a folder."""
        number = self.call("sbatch", "--parsable", *words, folder=folder, **variables).strip()
        return Job(self, number, folder)

    @property
    def logs(self) -> str:
        """What Slurm itself says, for the report of a failure."""
        return "\n".join(f"{path.name}:\n{path.read_text()[-3000:]}" for path in sorted(self.root.glob("log/*")))


@dataclass
class Job:
    """A job."""

    slurm: Slurm
    number: str
    folder: Path

    def shown(self, name: str) -> str:
        """Return a field of what Slurm shows of the job."""
        found = re.search(rf"\b{name}=(\S+)", self.slurm.call("scontrol", "show", "job", "-o", self.number))
        return found[1] if found else ""

    @property
    def state(self) -> str:
        return self.shown("JobState")

    @property
    def log(self) -> str:
        return "\n".join(path.read_text(errors="replace") for path in sorted(self.folder.glob("ubt-*.log")))

    @property
    def restarts(self) -> int:
        """How often it went back into the queue."""
        return int(self.shown("Restarts") or 0)

    def limit(self, minutes: int) -> None:
        """Let its time be over so many minutes after it has begun."""
        self.slurm.call("scontrol", "update", f"JobId={self.number}", f"TimeLimit={minutes}")

    def let_time_be_over(self) -> None:
        """Let its time be over in one to two minutes, wait until it is back in the queue, and give it time again."""
        before = self.restarts
        hours, minutes, _ = map(int, self.shown("RunTime").split(":"))
        self.limit(60 * hours + minutes + 2)
        self.wait_until(lambda: self.restarts > before)
        self.limit(60)

    def wait_until(self, condition: Callable[[], bool], seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until something is so."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"{self.state}, it takes too long: {self.log}\n{self.slurm.logs}"
            time.sleep(0.3)

    def end(self) -> tuple[str, int]:
        """Wait for the end; return the state and the status."""
        over = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL"}
        self.wait_until(lambda: self.state in over)
        return self.state, int(self.shown("ExitCode").partition(":")[0])


@contextmanager
def slurm(folder: Path) -> Iterator[Slurm]:
    """Yield a Slurm with three idle nodes; it ends with the block, and all its jobs with it."""
    root = folder / "slurm"
    for name in ("state", "log", "spool", "dev"):
        (root / name).mkdir(parents=True)
    for number in range(GPUS):
        os.mknod(root / f"dev/gpu{number}", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    with ExitStack() as held:
        nodes = held.enter_context(hosts(folder / "hosts", NODES))
        _configure(root, nodes)
        made = Slurm(root, nodes, {"SLURM_CONF": str(root / "slurm.conf"), "PATH": _PATH})
        held.callback(_clear_cgroups)
        held.enter_context(_running(root, "munged", "--foreground", *_munge(root)))
        with (root / "log/out").open("w") as stream:
            options = {"stdout": stream, "stderr": stream}
            for node in nodes:
                node.environment = made.environment
                (root / "spool" / node.name).mkdir()
                if node is nodes[0]:
                    node.start("slurmctld", "-D", "-c", **options)
                node.start("slurmd", "-D", "-N", node.name, **options)
        try:
            _wait_until_idle(made)
            yield made
        finally:
            with suppress(RuntimeError, subprocess.TimeoutExpired):
                made.call("scancel", "--partition=main")
                _wait_until_idle(made)


def _configure(root: Path, nodes: list[Host]) -> None:
    lines = [
        f"NodeName={node.name} NodeAddr={node.address} CPUs={CPUS} RealMemory=4000 Gres=gpu:{GPUS}" for node in nodes
    ]
    text = _CONF.format(
        first=nodes[0],
        root=root,
        tracked="cgroup" if FREEZER.is_dir() else "linuxproc",
        nodes="\n".join(lines),
        count=len(nodes),
    )
    (root / "slurm.conf").write_text(text)
    gpus = f"NodeName=host-[1-{len(nodes)}] Name=gpu File={root}/dev/gpu[0-{GPUS - 1}]"
    (root / "gres.conf").write_text(f"AutoDetect=off\n{gpus}\n")
    (root / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\nCgroupMountpoint=/sys/fs/cgroup\nCgroupAutomount=no\n")


def _munge(root: Path) -> list[str]:
    key = root / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(128))
    root.chmod(0o755)
    files = {"socket": "munge.socket", "pid-file": "munge.pid", "log-file": "log/munged.log", "seed-file": "munge.seed"}
    return [
        "--force",
        "--key-file",
        str(key),
        *(word for name, file in files.items() for word in (f"--{name}", str(root / file))),
    ]


@contextmanager
def _running(root: Path, *words: str) -> Iterator[None]:
    with (root / f"log/{words[0]}.out").open("w") as stream:
        process = subprocess.Popen(
            words,
            stdout=stream,
            stderr=stream,
            env={**os.environ, "PATH": _PATH, "SLURM_CONF": str(root / "slurm.conf")},
            start_new_session=True,
        )
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


def _wait_until_idle(made: Slurm) -> None:
    deadline = time.monotonic() + 60
    shown = ""
    while time.monotonic() < deadline:
        with suppress(RuntimeError):
            shown = made.call("sinfo", "--noheader", "--Node", "--format=%T")
            if shown.split() == ["idle"] * NODES:
                return
        time.sleep(0.2)
    raise RuntimeError(f"the nodes are {shown.split()}: {made.logs}")


def _clear_cgroups() -> None:
    """Remove what Slurm has left of its groups of processes; those that are empty, from the inside out."""
    for top in FREEZER.glob("slurm_host-*"):
        for folder in [*sorted((path for path in top.rglob("*") if path.is_dir()), reverse=True), top]:
            with suppress(OSError):
                folder.rmdir()
