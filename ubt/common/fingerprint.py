"""Keys: equal work has an equal fingerprint, on every machine and in every study."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from pydantic import JsonValue

_CHUNK_BYTES = 1 << 20


def fingerprint(value: JsonValue) -> str:
    """Return 32 hex digits that depend on the JSON value only, not on the order of its keys.

    Raises:
        ValueError: for NaN and infinities, which have no JSON form and are equal to nothing.
    """
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:32]


def digest_bytes(payload: bytes) -> str:
    """Return the SHA-256 of `payload` in hex."""
    return hashlib.sha256(payload).hexdigest()


def digest_file(path: Path) -> str:
    """Return the SHA-256 of a file's content in hex, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_CHUNK_BYTES):
            digest.update(block)
    return digest.hexdigest()
