"""Addresses of Ray: what they stand for, and whether anybody answers there.

- `inline` runs trials in this process, one after the other, without Ray;
- `local` starts a Ray of its own, also where a cluster runs or `$RAY_ADDRESS` names one;
- `auto`, or `HOST:PORT`, joins the cluster that this machine is a node of;
- `ray://HOST:PORT` joins a cluster from outside. Ray ends the trials if that connection is lost for 30 s, so a
  long sweep is better started on the head with `auto`.
"""

from __future__ import annotations

import os
import re
import socket

from ubt.errors import Problem, UserError

INLINE, LOCAL, AUTO = "inline", "local", "auto"

ON_THE_HEAD = "ray exec cluster.yaml --tmux 'ubt sweep … --address auto'"

_KNOCK_SECONDS = 5.0
_ADDRESS = re.compile(r"(ray://)?(?P<host>[^\s/:\[\]]+|\[[0-9a-fA-F:.]+\]):(?P<port>\d{1,5})")


def check_address(address: str) -> None:
    """Knock at a cluster's address. Ray itself tries for 30 s, or minutes, before it says that nobody is there.

    Raises:
        UserError: if it is no address, or nothing answers there.
    """
    host, port = _endpoint(address)
    try:
        socket.create_connection((host, port), _KNOCK_SECONDS).close()
    except (OSError, ValueError, OverflowError) as error:  # the latter for what is no host name or no port
        message = f"nothing answers at {host}:{port} ({error})"
        advice = f"is the cluster up, and may this machine reach that port? Or start it on the head: {ON_THE_HEAD}"
        raise UserError(Problem(f"--address {address}", message, advice=advice)) from error


def _endpoint(address: str) -> tuple[str, int]:
    """Return the host and port that an address of a cluster stands for.

    Raises:
        UserError: if it stands for none.
    """
    where, named = "--address", address
    if address == AUTO:
        where, named = "$RAY_ADDRESS", os.environ.get("RAY_ADDRESS") or _cluster_of_this_machine()
    found = _ADDRESS.fullmatch(named)
    if found is None:
        words = f"`{LOCAL}`, `{INLINE}`, `{AUTO}`, " if where == "--address" else ""
        raise UserError(Problem(where, f"must be {words}HOST:PORT or ray://HOST:PORT", named))
    return found["host"].strip("[]"), int(found["port"])


def _cluster_of_this_machine() -> str:
    """Return the HOST:PORT of the cluster that this machine is a node of.

    Raises:
        UserError: if it is none.
    """
    from ray._private.services import canonicalize_bootstrap_address  # noqa: PLC0415 — what `auto` means to Ray

    try:
        return str(canonicalize_bootstrap_address(AUTO))
    except ConnectionError as error:
        advice = f"leave it out to run on this machine alone, or start it on the cluster's head: {ON_THE_HEAD}"
        message = "this machine is no node of a Ray cluster"
        raise UserError(Problem("--address auto", message, advice=advice)) from error
