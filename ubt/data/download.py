"""Files from the web, fetched once and whole."""

from __future__ import annotations

import shutil
from functools import partial
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit
from urllib.request import urlopen

from ubt.errors import Problem, UserError
from ubt.files import made_once
from ubt.fingerprint import fingerprint
from ubt.places import cache_root

_TIMEOUT_SECONDS = 60


def downloaded(address: str) -> Path:
    """Return a local copy of the file at an http(s) address, fetching it if there is none.

    The copy is never compared with the address again: a study's data must not change under it.

    Raises:
        UserError: if it cannot be fetched completely, or the address is of another kind.
    """
    path = cache_root() / "shards" / f"{fingerprint(address)}-{PurePosixPath(urlsplit(address).path).name}"
    try:
        return made_once(path, partial(_fetch, address))
    except (OSError, HTTPException, ValueError) as error:
        raise UserError(Problem(address, f"cannot be fetched: {error}")) from error


def _fetch(address: str, path: Path) -> None:
    if urlsplit(address).scheme not in {"http", "https"}:
        raise ValueError("the address is neither http nor https")
    with urlopen(address, timeout=_TIMEOUT_SECONDS) as reply, path.open("wb") as stream:  # noqa: S310 — checked
        shutil.copyfileobj(reply, stream)
        promised = reply.headers.get("Content-Length")
    # A connection that breaks looks like the end of the file.
    if promised is not None and int(promised) != path.stat().st_size:
        raise OSError(f"{path.stat().st_size} of {promised} bytes came")
