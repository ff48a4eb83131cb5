"""Hosts of a cluster on one machine: each has a network, processes, a shared memory and mounts of its own.

Each is a network namespace on a bridge with a process that holds its other namespaces; ending that process is the
end of the host. Needs root, and a kernel that lets it make such things: `why_not` says what is missing.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

PORT = 6379
"""Of the head's GCS."""
_TOOLS = ("ip", "unshare", "nsenter", "mount")
_HOLD = """
hostname "$1"
mount --make-rprivate /
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /tmp/ray
shift
while [ $# -gt 0 ]; do mount --bind "$1" "$2"; shift 2; done
echo ready
exec sleep infinity
"""


@cache
def why_not() -> str:
    """Return why hosts cannot be made here; empty if they can."""
    lacking = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if lacking:
        return f"hosts need {', '.join(lacking)}"
    if os.geteuid() != 0:
        return "hosts need root"
    name = f"ubt-{secrets.token_hex(3)}"
    try:
        _run("ip", "netns", "add", name)
        _run("ip", "netns", "exec", name, "unshare", "-m", "-u", "-p", "-f", "--mount-proc", "true")
    except subprocess.CalledProcessError as error:
        return f"hosts need namespaces: {error.stderr.strip()}"
    finally:
        subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)
    return ""


@dataclass
class Host:
    """One host."""

    name: str
    """Its host name."""
    address: str
    folder: Path
    """What is its own on this machine's disk."""
    _network: str = ""
    _holder: subprocess.Popen[str] | None = None
    _mounts: list[str] = field(default_factory=list)
    """What it has instead of what this machine has: source, target, source, …"""
    environment: dict[str, str] = field(default_factory=dict)
    """What its processes are given beside this process's own."""

    @property
    def pid(self) -> int:
        """Return the process that holds the host's namespaces, as this machine counts processes."""
        assert self._holder is not None
        return int(Path(f"/proc/{self._holder.pid}/task/{self._holder.pid}/children").read_text().split()[0])

    def words(self, *command: str) -> list[str]:
        """Return what runs a command on the host."""
        inside = ["nsenter", "-t", str(self.pid), "-m", "-u", "-p", f"--net=/run/netns/{self._network}"]
        return [*inside, f"--wd={self.folder}", *command]

    def start(self, *command: str, **options: object) -> subprocess.Popen[str]:
        """Start a command on the host; `options` are those of `Popen`."""
        given = {"text": True, "errors": "replace", "start_new_session": True, **options}
        return subprocess.Popen(self.words(*command), env={**os.environ, **self.environment}, **given)  # type: ignore[call-overload, no-any-return]

    def run(self, *command: str, seconds: float = 120.0) -> str:
        """Run a command on the host, and return what it prints.

        Raises:
            RuntimeError: if it fails, with what it printed.
        """
        process = self.start(*command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            output, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            output, _ = process.communicate()
        if process.returncode:
            raise RuntimeError(f"{self.name}: {' '.join(command)} ended with {process.returncode}:\n{output}")
        return str(output)

    def start_ray(
        self,
        head: Host,
        cpus: int = 1,
        memory_bytes: int = 100_000_000,
        more: Sequence[str] = (),
        job_server: bool = False,
    ) -> None:
        """Start Ray on the host, as the cluster's head or as a node of it; a head may have a job server."""
        dashboard = [f"--dashboard-host={self.address}"] if job_server else ["--include-dashboard=false"]
        role = ["--head", f"--port={PORT}", *dashboard] if head is self else [f"--address={head.address}:{PORT}"]
        ray = [str(Path(sys.executable).with_name("ray")), "start", *role, f"--node-ip-address={self.address}"]
        options = [f"--num-cpus={cpus}", f"--object-store-memory={memory_bytes}", *more]
        self.run(*ray, *options, "--disable-usage-stats")

    def begin(self) -> None:
        """Start the host, as it was made; also after its end.

        Raises:
            RuntimeError: if that is not possible.
        """
        inside = [
            "unshare",
            "-m",
            "-u",
            "-p",
            "-f",
            "--kill-child",
            "--mount-proc",
            "sh",
            "-ec",
            _HOLD,
            "sh",
            self.name,
        ]
        words = ["nsenter", f"--net=/run/netns/{self._network}", *inside, *self._mounts]
        self._holder = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self._holder.stdout is not None
        if self._holder.stdout.readline().strip() != "ready":
            raise RuntimeError(f"{self.name} cannot be made")

    @property
    def up(self) -> bool:
        """Tell whether it runs."""
        return self._holder is not None and self._holder.poll() is None

    def unplug(self) -> None:
        """Cut the host off from the network."""
        _run("ip", "link", "set", f"{self._network}v", "down")

    def plug_in(self) -> None:
        """Connect it again."""
        _run("ip", "link", "set", f"{self._network}v", "up")

    def end(self) -> None:
        """End the host at once, as a loss of power does."""
        if self._holder is not None and self._holder.poll() is None:
            with suppress(OSError, IndexError):
                os.kill(self.pid, signal.SIGKILL)
            self._holder.wait(10)


@contextmanager
def hosts(
    folder: Path,
    count: int,
    other: Mapping[int, Mapping[Path, Path]] | None = None,
    mark: Mapping[str, str] | None = None,
) -> Iterator[list[Host]]:
    """Yield hosts that reach each other, without Ray; they end with the block.

    Args:
        folder: for what is their own: caches.
        count: how many.
        other: by the number of a host, from 0: path → what that host has there instead of what this machine has.
        mark: variables of all their processes.
    """
    net = f"ubt{secrets.token_hex(3)}"
    subnet = f"10.88.{secrets.randbelow(250) + 1}"
    token = secrets.token_hex(32)
    Path("/tmp/ray").mkdir(exist_ok=True)
    names = _names(folder, [(f"{subnet}.{number + 2}", f"host-{number + 1}") for number in range(count)])
    with ExitStack() as held:
        _run("ip", "link", "add", net, "type", "bridge")
        held.callback(_try, "ip", "link", "delete", net)
        _run("ip", "link", "set", net, "up")
        _run("ip", "address", "add", f"{subnet}.1/24", "dev", net)  # so that servers of this machine are reached too
        made = []
        for number in range(count):
            host = Host(f"host-{number + 1}", f"{subnet}.{number + 2}", folder / f"host-{number + 1}")
            host._network = f"{net}{number}"
            held.enter_context(_wired(host, net, subnet))
            host.folder.mkdir(parents=True)
            host.environment = {
                **(mark or {}),
                "UBT_CACHE": str(host.folder / "cache"),
                "RAY_AUTH_MODE": "token",
                "RAY_AUTH_TOKEN": token,
                "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1",
                "PYTHONPATH": os.pathsep.join(map(os.path.abspath, _paths())),
            }
            held.enter_context(_holding(host, {**names, **(other or {}).get(number, {})}))
            made.append(host)
        yield made


def _paths() -> list[str]:
    """Return where Python looks for modules first: hosts' processes do not run in this one's folder."""
    return [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]


def _names(folder: Path, known: Sequence[tuple[str, str]]) -> dict[Path, Path]:
    """Return what the hosts have in /etc: they know each other's names, and ask no name server."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "hosts").write_text(
        "".join(f"{address} {name}\n" for address, name in [("127.0.0.1", "localhost"), *known])
    )
    (folder / "resolv.conf").write_text("")
    return {Path("/etc/hosts"): folder / "hosts", Path("/etc/resolv.conf"): folder / "resolv.conf"}


@contextmanager
def _wired(host: Host, bridge: str, subnet: str) -> Iterator[None]:
    space = host._network
    _run("ip", "netns", "add", space)
    try:
        _run("ip", "link", "add", f"{space}v", "type", "veth", "peer", "name", "eth0", "netns", space)
        _run("ip", "link", "set", f"{space}v", "master", bridge, "up")
        for words in (
            ("link", "set", "lo", "up"),
            ("address", "add", f"{host.address}/24", "dev", "eth0"),
            ("link", "set", "eth0", "up"),
            ("route", "add", "default", "via", f"{subnet}.1"),
        ):
            _run("ip", "-n", space, *words)
        yield
    finally:
        _try("ip", "netns", "delete", space)


@contextmanager
def _holding(host: Host, other: Mapping[Path, Path]) -> Iterator[None]:
    """Keep a process that holds the host's namespaces, with its mounts in place."""
    host._mounts = [str(path) for target, source in other.items() for path in (source, target)]
    try:
        host.begin()
        yield
    finally:
        host.end()
        if host._holder is not None:
            host._holder.kill()
            host._holder.wait(10)


def cluster(made: Sequence[Host], cpus: int = 1, job_server: bool = False) -> str:
    """Start Ray on hosts, the first as head, and return the cluster's address."""
    head, *others = made
    head.start_ray(head, cpus, job_server=job_server)
    with ThreadPoolExecutor() as threads:
        list(threads.map(lambda host: host.start_ray(head, cpus), others))
    return f"{head.address}:{PORT}"


def _run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True, text=True)


def _try(*words: str) -> None:
    subprocess.run(words, check=False, capture_output=True)
