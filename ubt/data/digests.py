"""What is known of many files' contents, remembered by their sizes and times so that they are read only once."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from pydantic import JsonValue

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


def stamp_if_there(path: Path) -> Stamp | None:
    """Return the stamp of a file, or nothing where there is none."""
    try:
        return stamp(path)
    except OSError:
        return None


class FileFacts:
    """What is known of `paths` in their order, kept in the cache until one of them changes.

    Raises:
        UserError: naming a file that does not exist or cannot be read, here and in every method.
    """

    def __init__(self, paths: Sequence[Path], label: str) -> None:
        self._paths = paths
        self._label = label
        self._each = list(dict.fromkeys(paths))
        """Every file once: a photograph with five captions is read once."""
        with _as_mistake():
            stamps = dict(zip(self._each, in_threads(stamp, self._each), strict=True))
        self._memo = cache_root() / "digests" / f"{fingerprint([list(stamps[path]) for path in paths])}.json"
        self._known = _recall(self._memo)

    def digest(self) -> str:
        """Return a SHA-256 over the contents in their order; names and places do not matter."""
        known = self._known.get("sha256")
        if isinstance(known, str) and _SHA256.fullmatch(known):
            return known
        found = self._of_each(digest_file, "reading")
        digest = digest_bytes("\n".join(found[path] for path in self._paths).encode())
        self._remember("sha256", digest)
        return digest

    def any(self, name: str, look: Callable[[Path], bool]) -> bool:
        """Return whether `look`, remembered as `name`, is true of one of them."""
        known = self._known.get(name)
        if isinstance(known, bool):
            return known
        found = any(self._of_each(look, "looking at").values())
        self._remember(name, found)
        return found

    def texts(self, name: str, compute: Callable[[], Sequence[str]], count: int | None = None) -> Sequence[str]:
        """Return the texts that `compute` finds, `count` of them if that is known, remembered as `name`."""
        known = self._known.get(name)
        whole = isinstance(known, list) and count in {None, len(known)}
        if isinstance(known, list) and whole and all(isinstance(text, str) for text in known):
            return [str(text) for text in known]
        found = list(compute())
        self._remember(name, [*found])
        return found

    def _of_each(self, function: Callable[[Path], Result], doing: str) -> dict[Path, Result]:
        with _as_mistake():
            found = progress(in_threads(function, self._each), len(self._each), f"{doing} {self._label}")
            return dict(zip(self._each, found, strict=True))

    def _remember(self, name: str, value: JsonValue) -> None:
        self._known[name] = value
        try:
            write_whole(self._memo, json.dumps(self._known))
        except OSError as error:
            _log.warning("what is known of the data is not remembered and will be found out again: %s", error)


def digest_files(paths: Sequence[Path], label: str) -> str:
    """Return a SHA-256 over the contents of `paths` in their order; names and places do not matter.

    Files are read in threads. A second call, also in another process, only looks at sizes and times.

    Raises:
        UserError: naming the file that cannot be read.
    """
    return FileFacts(paths, label).digest()


@contextmanager
def _as_mistake() -> Iterator[None]:
    """Turn an `OSError` into a `UserError` that names the file."""
    try:
        yield
    except OSError as error:
        raise UserError(Problem(str(error.filename), f"cannot be read: {error.strerror}")) from error


def _recall(memo: Path) -> dict[str, JsonValue]:
    """Return what is remembered; nothing if there is no such file or it is damaged."""
    try:
        remembered = json.loads(memo.read_text())
    except (OSError, ValueError):
        return {}
    return remembered if isinstance(remembered, dict) else {}
