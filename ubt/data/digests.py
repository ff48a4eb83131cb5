"""Content digests of many files, remembered by their sizes and times so that they are read only once."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from ubt.common.atomic_files import write_whole
from ubt.common.errors import Problem, UserError
from ubt.common.hashing import digest_bytes, digest_file, fingerprint
from ubt.common.paths import cache_root
from ubt.common.progress import progress

Result = TypeVar("Result")

_THREADS = 16
_BATCH = 64  # a future for each file would cost ten times what looking at the file does


def in_threads(function: Callable[[Path], Result], paths: Sequence[Path]) -> Iterator[Result]:
    """Yield `function(path)` for each path in order; what it raises is raised here."""

    def batch_results(start: int) -> list[Result]:
        return [function(path) for path in paths[start : start + _BATCH]]

    with ThreadPoolExecutor(_THREADS) as threads:
        for results in threads.map(batch_results, range(0, len(paths), _BATCH)):
            yield from results


_SHA256 = re.compile(r"[0-9a-f]{64}")

_log = logging.getLogger(__name__)

Stamp = tuple[str, int, int]
"""Absolute path, size in bytes, time of the last change in nanoseconds."""


def stamp(path: Path) -> Stamp:
    """Return what changes when a file is written.

    Raises:
        OSError: if the file does not exist.
    """
    state = path.stat()
    return str(path.absolute()), state.st_size, state.st_mtime_ns


def digest_files(paths: Sequence[Path], label: str) -> str:
    """Return a SHA-256 over the contents of `paths` in their order; names and places do not matter.

    Files are read in threads. A second call, also in another process, only looks at sizes and times.

    Raises:
        UserError: naming the file that cannot be read.
    """
    try:
        memo = _memo(list(in_threads(stamp, paths)))
        remembered = _recall(memo)
        if remembered:
            return remembered
        listed = "\n".join(progress(in_threads(digest_file, paths), len(paths), f"reading {label}"))
    except OSError as error:
        raise UserError(Problem(str(error.filename), f"cannot be read: {error.strerror}")) from error
    digest = digest_bytes(listed.encode())
    _remember(memo, digest)
    return digest


def _memo(stamps: Sequence[Stamp]) -> Path:
    return cache_root() / "digests" / f"{fingerprint([list(each) for each in stamps])}.json"


def _recall(memo: Path) -> str:
    """Return the remembered digest, or nothing if there is none or the file is damaged."""
    try:
        remembered = json.loads(memo.read_text())
    except (OSError, ValueError):
        return ""
    digest = remembered.get("sha256") if isinstance(remembered, dict) else None
    return digest if isinstance(digest, str) and _SHA256.fullmatch(digest) else ""


def _remember(memo: Path, digest: str) -> None:
    try:
        write_whole(memo, json.dumps({"sha256": digest}))
    except OSError as error:
        _log.warning("the digest of the data is not remembered and will be computed again: %s", error)
