"""What is known of many files' contents, remembered by their sizes and times so that they are read only once."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from ubt.common.atomic_files import alone, write_whole
from ubt.common.errors import Problem, UserError
from ubt.common.hashing import digest_file, digest_lines, fingerprint, fingerprint_of_list
from ubt.common.paths import cache_root
from ubt.common.progress import progress

Given = TypeVar("Given")
Result = TypeVar("Result")

_THREADS = 16
_BATCH = 64  # a future for each file would cost ten times what looking at the file does


def in_threads(function: Callable[[Given], Result], given: Sequence[Given], batch: int = _BATCH) -> Iterator[Result]:
    """Yield `function(one)` for each given in order, `batch` of them a task; what it raises is raised here."""

    def batch_results(start: int) -> list[Result]:
        return [function(one) for one in given[start : start + batch]]

    with ThreadPoolExecutor(_THREADS) as threads:
        for results in threads.map(batch_results, range(0, len(given), batch)):
            yield from results


_SHA256 = re.compile(r"[0-9a-f]{64}")

_log = logging.getLogger(__name__)

Stamp = tuple[str, int, int, int]
"""Absolute path, size in bytes, times in nanoseconds: of the last writing, and of the last change of any kind.

The latter is what no program sets: two nodes' copies of one path differ in it, though a tool that copied them, or
unpacked them, gave both the time of writing that the original had."""


def stamp(path: Path | str) -> Stamp:
    """Return what changes when a file is written, or another one takes its place.

    Raises:
        OSError: if the file does not exist.
    """
    text = str(path)
    if not os.path.isabs(text):  # noqa: PTH117 — a `Path` of each of half a million takes as long as looking at it
        text = str(Path(text).absolute())
    state = os.stat(text)  # noqa: PTH116
    return text, state.st_size, state.st_mtime_ns, state.st_ctime_ns


def stamp_if_there(path: Path | str) -> Stamp | None:
    """Return the stamp of a file, or nothing where there is none."""
    try:
        return stamp(path)
    except (OSError, ValueError):  # the latter for what no path can be
        return None


_looked_at: ContextVar[dict[str, Stamp] | None] = ContextVar("looked_at", default=None)


@contextmanager
def files_looked_at() -> Iterator[dict[str, Stamp]]:
    """Yield what fills with the files of which something is asked (`FileFacts`) inside the block, as they were then."""
    found: dict[str, Stamp] = {}
    before = _looked_at.set(found)
    try:
        yield found
    finally:
        _looked_at.reset(before)


class FileFacts:
    """What is known of `paths` in their order, kept in the cache until one of them changes.

    Of all processes that want to know the same at once, one finds it out and the others wait.

    Raises:
        UserError: naming a file that does not exist or cannot be read, here and in every method.
    """

    def __init__(self, paths: Sequence[Path | str], label: str) -> None:
        self._paths = [str(path) for path in paths]
        self._label = label
        self._each = list(dict.fromkeys(self._paths))
        """Every file once: a photograph with five captions is read once."""
        with _as_mistake():
            self._stamps = dict(zip(self._each, in_threads(stamp, self._each), strict=True))
        if (looked_at := _looked_at.get()) is not None:
            looked_at.update(self._stamps)
        of_stamps = fingerprint_of_list(list(self._stamps[path]) for path in self._paths)
        self._memo = cache_root() / "digests" / f"{of_stamps}.json"
        self._known = _recall(self._memo)

    def digest(self) -> str:
        """Return a SHA-256 over the contents in their order; names and places do not matter."""

        def compute() -> str:
            found = self.each()
            return digest_lines(found[path] for path in self._paths)

        return self._remembered("sha256", _as_sha256, compute)

    def each(self) -> Mapping[str, str]:
        """Return the SHA-256 of every file. Only those that changed since they were read last are read."""
        table = KnownDigests(self._each)
        known = dict(zip(self._each, table.of([self._stamps[path] for path in self._each]), strict=True))
        unknown = [path for path, digest in known.items() if not digest]
        if unknown:
            found = self._of_each(digest_file, "reading", unknown)
            table.remember({self._stamps[path]: digest for path, digest in found.items()})
            known.update(found)
        return known

    def any(self, name: str, look: Callable[[Path], bool]) -> bool:
        """Return whether `look`, remembered as `name`, is true of one of them."""

        def compute() -> bool:
            return any(self._of_each(look, "looking at", self._each).values())

        return self._remembered(name, lambda known: known if isinstance(known, bool) else None, compute)

    def texts(self, name: str, compute: Callable[[], Sequence[str]], count: int | None = None) -> Sequence[str]:
        """Return the texts that `compute` finds, `count` of them if that is known, remembered as `name`."""

        def recalled(known: JsonValue) -> list[str] | None:
            if not isinstance(known, list) or count not in {None, len(known)}:
                return None
            texts = [text for text in known if isinstance(text, str)]
            return texts if len(texts) == len(known) else None

        return self._remembered(name, recalled, lambda: list(compute()))

    def _remembered(
        self, name: str, recalled: Callable[[JsonValue], Result | None], compute: Callable[[], Result]
    ) -> Result:
        """Return what is known as `name`, if `recalled` takes it for what it is to be; else what `compute` finds."""
        found = recalled(self._known.get(name))
        if found is not None:
            return found
        with _alone_if_possible(self._memo):
            self._known = _recall(self._memo) or self._known  # another process may have found it out meanwhile
            found = recalled(self._known.get(name))
            if found is None:
                found = compute()
                self._known[name] = found  # type: ignore[assignment]  # a text, a truth value or texts
                _remember(self._memo, json.dumps(self._known))
        return found

    def _of_each(self, function: Callable[[Path], Result], doing: str, paths: Sequence[str]) -> dict[str, Result]:
        with _as_mistake():
            looked = in_threads(lambda path: function(Path(path)), paths)
            found = progress(looked, len(paths), f"{doing} {self._label}")
            return dict(zip(paths, found, strict=True))


def digest_files(paths: Sequence[Path], label: str) -> str:
    """Return a SHA-256 over the contents of `paths` in their order; names and places do not matter.

    Files are read in threads. A second call, also in another process, only looks at sizes and times.

    Raises:
        UserError: naming the file that cannot be read.
    """
    return FileFacts(paths, label).digest()


class KnownDigests:
    """The digests of single files below one folder that have been read, by their stamps.

    Of each 16 bytes of the stamp's own digest are kept, and 32 of its file's; in memory as on disk, since as Python's
    own bytes they would take three times as much.
    """

    _ROW = np.dtype([("stamp", "<u8", 2), ("digest", "u1", 32)])

    def __init__(self, paths: Sequence[str]) -> None:
        folders = {os.path.dirname(path) for path in paths}  # noqa: PTH120 — fewer than half a million
        folder = os.path.commonpath([Path(one).absolute() for one in folders]) if paths else ""
        self._file = cache_root() / "digests" / f"{fingerprint(folder)}.bin"
        self._known = self._recall()

    def of(self, stamps: Sequence[Stamp]) -> list[str]:
        """Return the SHA-256 of the file with each stamp; nothing where it is not known."""
        known, asked = self._known, _short(stamps)
        if not len(known):
            return [""] * len(asked)
        # By the first half of the stamp's digest; the other half tells whether it is the one.
        at = np.searchsorted(known["stamp"][:, 0], asked[:, 0]).clip(max=len(known) - 1)
        found = (known["stamp"][at] == asked).all(axis=1)
        return [known["digest"][row].tobytes().hex() if there else "" for row, there in zip(at, found, strict=True)]

    def remember(self, found: Mapping[Stamp, str]) -> None:
        """Add some. Of two processes that do so at once one is not heard, and those files are read once more."""
        new = np.empty(len(found), self._ROW)
        new["stamp"] = _short(list(found))
        digests = b"".join(map(bytes.fromhex, found.values()))
        new["digest"] = np.frombuffer(digests, dtype=np.uint8).reshape(-1, 32)
        self._known = _sorted(np.concatenate([self._recall(), new]))
        _remember(self._file, self._known.tobytes())

    def _recall(self) -> NDArray[np.void]:
        try:
            content = self._file.read_bytes()
        except OSError:
            content = b""
        return _sorted(np.frombuffer(content if len(content) % self._ROW.itemsize == 0 else b"", dtype=self._ROW))


def _sorted(rows: NDArray[np.void]) -> NDArray[np.void]:
    """Return rows in the order of their stamps, of equal stamps the last one."""
    first, second = rows["stamp"][:, 0], rows["stamp"][:, 1]
    rows = rows[np.lexsort((second, first))]  # stable
    last = np.ones(len(rows), dtype=bool)
    last[:-1] = (rows["stamp"][1:] != rows["stamp"][:-1]).any(axis=1)
    return rows[last]


def _short(stamps: Sequence[Stamp]) -> NDArray[np.uint64]:
    """Return 16 bytes of each stamp's digest, `[N, 2]`."""
    digests = b"".join(bytes.fromhex(fingerprint(list(stamp))) for stamp in stamps)
    return np.frombuffer(digests, dtype="<u8").reshape(-1, 2)


@contextmanager
def _alone_if_possible(memo: Path) -> Iterator[None]:
    """Keep out other processes that would find out the same, where the cache can hold a lock."""
    with ExitStack() as held:
        try:
            memo.parent.mkdir(parents=True, exist_ok=True)
            held.enter_context(alone(memo))
        except OSError as error:
            _log.debug("no lock beside %s: %s", memo, error)
        yield


@contextmanager
def _as_mistake() -> Iterator[None]:
    """Turn an `OSError` into a `UserError` that names the file."""
    try:
        yield
    except OSError as error:
        raise UserError(Problem(str(error.filename), f"cannot be read: {error.strerror}")) from error


def _as_sha256(known: JsonValue) -> str | None:
    return known if isinstance(known, str) and _SHA256.fullmatch(known) else None


def _recall(memo: Path) -> dict[str, JsonValue]:
    """Return what is remembered; nothing if there is no such file or it is damaged."""
    try:
        remembered = json.loads(memo.read_text())
    except (OSError, ValueError):
        return {}
    return remembered if isinstance(remembered, dict) else {}


def _remember(path: Path, content: str | bytes) -> None:
    """Write a file of the cache whole; where that is not possible, say so."""
    try:
        write_whole(path, content)
    except OSError as error:
        _log.warning("what is known of the data is not remembered and will be found out again: %s", error)
