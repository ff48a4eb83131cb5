"""Files from the web, fetched once and whole."""

from __future__ import annotations

import os
import shutil
import threading
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit
from urllib.request import urlopen

from ubt.data.digests import cache_root
from ubt.errors import Problem, UserError
from ubt.fingerprint import fingerprint

_TIMEOUT_SECONDS = 60


def downloaded(address: str) -> Path:
    """Return a local copy of the file at an http(s) address, fetching it if there is none.

    The copy is never compared with the address again: a study's data must not change under it.

    Raises:
        UserError: if it cannot be fetched completely, or the address is of another kind.
    """
    path = cache_root() / "shards" / f"{fingerprint(address)}-{PurePosixPath(urlsplit(address).path).name}"
    if not path.exists():
        try:
            _fetch(address, path)
        except (OSError, HTTPException, ValueError) as error:
            raise UserError(Problem(address, f"cannot be fetched: {error}")) from error
    return path


def _fetch(address: str, path: Path) -> None:
    if urlsplit(address).scheme not in {"http", "https"}:
        raise ValueError("the address is neither http nor https")
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        with urlopen(address, timeout=_TIMEOUT_SECONDS) as reply, unfinished.open("wb") as stream:  # noqa: S310 — checked
            shutil.copyfileobj(reply, stream)
            promised = reply.headers.get("Content-Length")
        # A connection that breaks looks like the end of the file.
        if promised is not None and int(promised) != unfinished.stat().st_size:
            raise OSError(f"{unfinished.stat().st_size} of {promised} bytes came")
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
