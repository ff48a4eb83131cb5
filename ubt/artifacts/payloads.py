"""Payloads as they are handed to a store and lie in it: called by their checksum, written from one or several parts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from ubt.artifacts.manifest import MANIFEST_FILE
from ubt.common.atomic_files import whole_file
from ubt.common.hashing import write_hashed

Part = bytes | memoryview
Content = bytes | Sequence[Part]
"""A payload's bytes, in one or in several parts; each part's length is in bytes."""

_MANIFEST = re.escape(MANIFEST_FILE)
_WRITTEN = re.compile(
    rf"[^/]+/[^/]+/(\.?[^/]+-[0-9a-f]{{16}}\.bin(\.[^/]+)? | \.{_MANIFEST}\.[^/]+ | {_MANIFEST}\.damaged-[^/]+)"
    r" | \.+writable-[^/]+",
    re.VERBOSE,
)


@dataclass(frozen=True)
class StoredFile:
    """A file as it lies in a store or a cache."""

    path: str
    size_bytes: int
    modified: datetime
    """With its time zone."""


def parts_of(content: Content) -> tuple[Part, ...]:
    """Return a payload's parts."""
    return (content,) if isinstance(content, bytes) else tuple(content)


def payload_file(name: str, digest: str) -> str:
    """Return what the file of a payload with that checksum is called."""
    return f"{name}-{digest[:16]}.bin"


def is_ours(path: str) -> bool:
    """Tell whether a file below a store's folder of artifacts is of a store's making: others may have files there."""
    return _WRITTEN.fullmatch(path) is not None


def write_payload(folder: Path, name: str, parts: Sequence[Part]) -> str:
    """Write a payload into a folder of this machine, whole and lasting, and return its checksum, which it is called by.

    Raises:
        OSError: if the disk is full or not writable.
    """
    digest = ""
    path = folder / payload_file(name, "0" * 16)
    with whole_file(path, lasting=True, called=lambda: payload_file(name, digest)) as unfinished:
        digest = write_hashed(unfinished, parts)
    return digest
