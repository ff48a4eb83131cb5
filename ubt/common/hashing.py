"""What follows from a content or a seed alone: keys of work, digests of files, and generators for one purpose each."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import xxhash

if TYPE_CHECKING:
    import numpy as np
    import torch
    from pydantic import JsonValue


_CHUNK_BYTES = 1 << 20
_WRITTEN_BYTES = 1 << 20


def fingerprint(value: JsonValue) -> str:
    """Return 32 hex digits that depend on the JSON value only, not on the order of its keys.

    Raises:
        ValueError: for NaN and infinities, which have no JSON form and are equal to nothing.
    """
    return hashlib.sha256(_canonical(value)).hexdigest()[:32]


def fingerprint_of_list(values: Iterable[JsonValue]) -> str:
    """Return the `fingerprint` of the list of these values, which need not all be in memory.

    Raises:
        ValueError: as `fingerprint`.
    """
    digest = hashlib.sha256(b"[")
    for number, value in enumerate(values):
        digest.update(b"," * (number > 0) + _canonical(value))
    digest.update(b"]")
    return digest.hexdigest()[:32]


def _canonical(value: JsonValue) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True).encode()


def digest_bytes(*parts: bytes | memoryview) -> str:
    """Return the SHA-256 of a payload, which may be in parts, in hex."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def digest_lines(texts: Iterable[str]) -> str:
    """Return the SHA-256 of texts, one a line, which need not all be in memory, in hex."""
    digest = hashlib.sha256()
    for number, text in enumerate(texts):
        digest.update(b"\n" * (number > 0) + text.encode())
    return digest.hexdigest()


def checksum(*parts: bytes | memoryview) -> str:
    """Return the XXH3-128 of a payload, which may be in parts, in hex.

    It finds what a disk or a network has damaged at a fourteenth of what SHA-256 costs, as much as writing to a file
    does. It is no protection from those who alter a store on purpose: they can change checksums, too.
    """
    digest = xxhash.xxh3_128()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def write_hashed(path: Path, parts: Sequence[bytes | memoryview]) -> str:
    """Write a payload to `path`, and return its `checksum`; block by block, so that nothing is read a second time."""
    digest = xxhash.xxh3_128()
    with path.open("wb", buffering=0) as stream:
        for part in parts:
            for start in range(0, len(part), _WRITTEN_BYTES):
                block = memoryview(part)[start : start + _WRITTEN_BYTES]
                digest.update(block)
                while block:
                    block = block[stream.write(block) :]
    return digest.hexdigest()


def digest_file(path: Path) -> str:
    """Return the SHA-256 of a file's content in hex, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_CHUNK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def derive(seed: int, *purpose: str | int) -> int:
    """Return a 63-bit seed for one purpose, e.g. `derive(0, "overfit", "order", 3)`."""
    text = "\x1f".join([str(seed), *map(str, purpose)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def numpy_generator(seed: int, *purpose: str | int) -> np.random.Generator:
    """Return a numpy generator for one purpose."""
    import numpy as np  # noqa: PLC0415 — commands that only print their help use this module's other half

    return np.random.default_rng(derive(seed, *purpose))


def torch_generator(seed: int, *purpose: str | int) -> torch.Generator:
    """Return a CPU torch generator for one purpose."""
    import torch  # noqa: PLC0415 — planning uses this module's other half without torch

    return torch.Generator().manual_seed(derive(seed, *purpose))
