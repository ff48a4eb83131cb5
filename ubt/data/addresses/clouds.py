"""Files in a cloud (S3 and the like): whether one is another than it was, and what is in it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from ubt.common.progress import beat
from ubt.data.digests import Stamp

CLOUDS = frozenset(("s3", "gs", "gcs", "az", "abfs"))
"""Kinds of addresses that fsspec opens; others of its kinds could read more than a file is meant to say."""
_AT_A_TIME = 16 << 20
"""Bytes that are asked for at a time: each request takes as long as some megabytes do."""
_CONTENT = ("ETag", "etag", "generation", "md5Hash")
"""What clouds change with a file's content, as fsspec passes it on."""
_TIMES = ("LastModified", "last_modified", "updated", "mtime")


@dataclass(frozen=True)
class CloudFile:
    """A file in a cloud as it was when it was looked at."""

    address: str
    size_bytes: int
    version: str
    """What changes when another file takes its place."""

    @property
    def stamp(self) -> Stamp:
        """The same on every machine, unlike that of a file on disk."""
        return f"{self.address} {self.version}", self.size_bytes, 0, 0

    def __str__(self) -> str:
        return self.address


def is_in_cloud(address: str) -> bool:
    """Return whether an address is of a cloud."""
    return urlsplit(address).scheme.lower() in CLOUDS


@lru_cache(maxsize=65_536)
def seen(address: str) -> CloudFile | None:
    """Return what a file is like, as this process has seen it first: asking takes a request to the cloud.

    Raises:
        OSError: as `look`.
    """
    return look(address)


def look(address: str) -> CloudFile | None:
    """Return what a file is like now; None if its cloud says nothing that changes with a file's content.

    Raises:
        OSError: if it is not there, or its cloud cannot be asked.
    """
    with _faults(address):
        files, path = _opened(address)
        files.invalidate_cache()  # of listings
        info: Mapping[str, Any] = files.info(path)
    version = [f"{name}={info[name]}" for name in (*_CONTENT, *_TIMES) if info.get(name)]
    if info.get("size") is None or not any(info.get(name) for name in _CONTENT):
        return None
    return CloudFile(address, int(info["size"]), " ".join(version))


def copy_into(file: CloudFile, stream: IO[bytes]) -> str:
    """Write what is in a file, read in one go, to a stream; return its SHA-256.

    Raises:
        OSError: if it cannot be read, is cut off, or is another one meanwhile.
    """
    digest, size = hashlib.sha256(), 0
    with _faults(file.address):
        files, path = _opened(file.address)
        with files.open(path, "rb", block_size=_AT_A_TIME, cache_type="readahead") as remote:
            while part := remote.read(_AT_A_TIME):
                stream.write(part)
                digest.update(part)
                size += len(part)
                beat()
    if size != file.size_bytes or look(file.address) != file:
        raise OSError("it has changed while it was read")
    return digest.hexdigest()


def copy_to(address: str, path: Path) -> None:
    """Write a file in a cloud to one on disk.

    Raises:
        OSError: if it cannot be read.
    """
    with _faults(address):
        files, remote = _opened(address)
        files.get_file(remote, str(path))


def _opened(address: str) -> tuple[Any, str]:
    """Return the file system of an address, and the path of the file on it."""
    import fsspec  # noqa: PLC0415 — few data sets lie there

    found: tuple[Any, str] = fsspec.url_to_fs(address)
    return found


@contextmanager
def _faults(address: str) -> Iterator[None]:
    """Turn what libraries raise, each of its own kind, into an `OSError` that says what is wrong."""
    if not is_in_cloud(address):
        raise OSError("the address is of a kind that is not fetched")
    try:
        yield
    except FileNotFoundError as error:
        raise OSError("there is no such file") from error
    except ImportError as error:
        raise OSError(f"a package is missing: {error}") from error
    except Exception as error:
        raise OSError(f"{type(error).__name__}: {error}") from error
