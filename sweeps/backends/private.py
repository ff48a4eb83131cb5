"""A Ray of our own, for this user on this machine, and whose the others are that run here.

Ours is out of reach from the network, and closed to who has no token.

Ray's head, raylet and workers listen on all interfaces, even if they are given an address, unless Ray takes the machine
for one that has no network: then they listen on the loopback interface alone. Other users of the machine reach that,
too, which the token is for. They could also replace Ray's sockets and logs, whose folders it opens to everybody; so
these lie in a folder that only this user may enter.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

LOOPBACK = "127.0.0.1"
_LONGEST_FOLDER = 36
"""Characters: a socket's path has 107 at most, and Ray's own part of it takes up to 71."""
_MODE, _TOKEN, _TOKEN_FILE = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"


@contextmanager
def kept_private() -> Iterator[dict[str, Any]]:
    """Yield what `ray.init` is given to start a Ray that is private; it has to be started in the block."""
    from ray._private import ray_constants  # noqa: PLC0415 — 2 s; private, so Ray is pinned
    from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined] # noqa: PLC0415

    if os.environ.get(_MODE, "").lower() != "token":
        os.environ.pop(_MODE, None)  # then a Ray that `ray.init` starts asks for a token, also where another need not
    have_token()
    AuthenticationTokenLoader.instance().reset_cache()  # of a cluster that this process was a client of before, say
    before = ray_constants.ENABLE_RAY_CLUSTER
    # What $RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0 sets, for which it would be too late: this machine is all there is.
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        with _small():
            yield {"_node_ip_address": LOOPBACK, "_temp_dir": str(own_folder() / "ray")}
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


@contextmanager
def _small() -> Iterator[None]:
    """Start of Ray's processes only those that trials need: all of them take twice as long, on every sweep.

    Left out are the server of its dashboard (which comes without pages, too), the autoscaler's monitor, and the process
    that passes on what workers print.
    """
    node: Any = import_module("ray._private.node").Node  # private, as above
    left_out = {"start_api_server": _no_server, "start_monitor": _nothing, "start_log_monitor": _nothing}
    before = {name: getattr(node, name) for name in left_out}
    for name, instead in left_out.items():
        setattr(node, name, instead)
    try:
        yield
    finally:
        for name, own in before.items():
            setattr(node, name, own)


def _no_server(node: Any, **_: object) -> None:  # noqa: ANN401 — Ray's own node
    node._webui_url = ""


def _nothing(node: object) -> None:
    """Stands for a process that is not started."""


def own_folder() -> Path:
    """Return a folder for temporary files that only this user may enter; one that another user has made is not used.

    Raises:
        OSError: if none can be made.
    """
    from ray._common.utils import get_default_system_temp_dir  # noqa: PLC0415 — $RAY_TMPDIR, $TMPDIR, /tmp

    shared, name = get_default_system_temp_dir(), f"ubt-{os.getuid()}"  # type: ignore[no-untyped-call]
    if len(f"{shared}/{name}") > _LONGEST_FOLDER:
        shared = "/tmp"  # noqa: S108 — shared by all, which is why the folder in it is this user's alone
    folder = Path(shared, name)
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=shared))
    folder.chmod(0o700)
    return folder


@dataclass(frozen=True)
class RunningNode:
    """A node of Ray's that runs on this machine."""

    cluster: str
    """HOST:PORT of its cluster's head."""
    user: str
    ours: bool
    """It is this user's."""
    private: bool
    """It belongs to one sweep alone: see `kept_private`."""


def running_nodes() -> list[RunningNode]:
    """Return the nodes of Ray's on this machine, of all users, as far as this user may see processes.

    Ray itself, asked for the cluster of this machine, takes any process of any user for it.
    """
    import psutil  # noqa: PLC0415

    found = []
    for process in psutil.process_iter(["name", "cmdline", "uids", "username"]):
        if process.info["name"] != "raylet" or not process.info["cmdline"]:
            continue
        command = " ".join(process.info["cmdline"])
        cluster, folder = (re.search(rf"--{flag}[= ](\S+)", command) for flag in ("gcs-address", "temp-dir"))
        if cluster is not None:
            user = process.info["uids"].real
            private = folder is not None and re.search(rf"/ubt-{user}(-\w+)?/ray$", folder[1]) is not None
            found.append(RunningNode(cluster[1], process.info["username"], user == os.getuid(), private))
    return found


def have_token() -> None:
    """Have the token that Ray looks for, readable by this user alone from its first moment on: Ray's own is by all.

    Where the home folder takes no file, the token is kept in this process and those that it starts.
    """
    if os.environ.get(_TOKEN) or os.environ.get(_TOKEN_FILE):
        return
    path = Path.home() / ".ray" / "auth_token"
    try:
        if not path.exists():
            _write_token(path)
        if path.stat().st_mode & 0o077:
            path.chmod(0o600)
    except OSError:
        os.environ[_TOKEN] = secrets.token_hex(32)


def _write_token(path: Path) -> None:
    """Write a new token whole, unless another process has been quicker: what has begun with one must go on with it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    opened = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(opened, "w") as stream:
            stream.write(secrets.token_hex(32))
        with suppress(FileExistsError):
            path.hardlink_to(unfinished)
    finally:
        unfinished.unlink()
