"""Files at addresses of which a copy is kept on this machine."""

from __future__ import annotations

import shutil
from base64 import b64encode
from functools import partial
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit, urlunsplit
from urllib.request import Request, urlopen

from ubt.common.atomic_files import made_once
from ubt.common.errors import Problem, UserError
from ubt.common.hashing import fingerprint
from ubt.common.paths import cache_root
from ubt.data.addresses.clouds import copy_to

_TIMEOUT_SECONDS = 60
WEB = frozenset(("http", "https"))


def downloaded(address: str) -> Path:
    """Return a local copy of the file at an address on the web or in a cloud, fetching it if there is none.

    The copy is never compared with the address again: a study's data must not change under it.

    Raises:
        UserError: if it cannot be fetched completely, or the address is of another kind.
    """
    path = local_copy(address)
    fetch = _fetch if urlsplit(address).scheme.lower() in WEB else copy_to
    try:
        return made_once(path, partial(fetch, address))
    except (OSError, HTTPException, ValueError) as error:
        raise UserError(Problem(address, f"cannot be fetched: {error}")) from error


def local_copy(address: str) -> Path:
    """Return where the copy of the file at an address lies, whether there is one or not."""
    return cache_root() / "shards" / f"{fingerprint(address)}-{PurePosixPath(urlsplit(address).path).name}"


def _fetch(address: str, path: Path) -> None:
    if urlsplit(address).scheme.lower() not in WEB:
        raise ValueError("the address is neither http nor https")
    with urlopen(_request(address), timeout=_TIMEOUT_SECONDS) as reply, path.open("wb") as stream:  # noqa: S310 — checked
        shutil.copyfileobj(reply, stream)
        promised = reply.headers.get("Content-Length")
    # A connection that breaks looks like the end of the file.
    if promised is not None and int(promised) != path.stat().st_size:
        raise OSError(f"{path.stat().st_size} of {promised} bytes came")


def _request(address: str) -> Request:
    """Return what is asked for; urllib takes a user and a password in an address for its host, and quotes them."""
    parts = urlsplit(address)
    try:
        user, password, _ = unquote(parts.username or ""), unquote(parts.password or ""), parts.port
    except ValueError:
        raise ValueError("host and port cannot be read: in a password / is written %2F, and @ is %40") from None
    request = Request(urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])))  # noqa: S310 — checked
    if user:
        # Not sent on to another host that this one may lead to.
        request.add_unredirected_header("Authorization", f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}")
    return request
