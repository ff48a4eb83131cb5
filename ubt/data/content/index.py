"""The index of a data set: every row, file and line that it consists of, with size and digest."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from pydantic import TypeAdapter

from ubt.common.hashing import digest_file
from ubt.data.digests import KnownDigests, in_threads, stamp_if_there

_AT_A_TIME = 1024
"""Rows whose files are looked at, or read, ahead of what is asked for."""
_MOST_BYTES = 16 << 20
"""Of one entry: captions of shards have a megabyte at most, which JSON may write with six letters for one."""
_DIGITS = 16
"""Of a digest that are kept: whether data differs is told by its key, the index only finds out where."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of a list, one file, or one line of a text."""

    where: str
    """In words, for messages: `/data/pairs.csv: row 17`."""
    file: str = ""
    """Path of the file that it names; empty for a line of text."""
    size_bytes: int | None = None
    """Of that file; None if there is none that can be read."""
    sha256: str = ""
    """First digits of that file's digest."""
    text: str = ""
    """What is said about the file, a caption or a label; or the line."""

    def same(self, other: Entry) -> bool:
        """Tell whether another entry has the same content, wherever its files lie."""
        mine, others = ((entry.size_bytes, entry.sha256, entry.text) for entry in (self, other))
        return mine == others


class Listed(Protocol):
    """An entry before its file is looked at: a row of a list, for one."""

    @property
    def where(self) -> str: ...  # noqa: D102 — as those of `Entry`
    @property
    def file(self) -> str: ...  # noqa: D102
    @property
    def text(self) -> str: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class ListedFile:
    """A file that is no row of a list."""

    where: str
    file: str
    text: str = ""


def entries(listed: Sequence[Listed]) -> Iterator[Entry]:
    """Yield what is listed with sizes and digests; files that have been read before and not changed are not read."""
    known = KnownDigests([one.file for one in listed])
    digests: dict[str, str] = {}
    for start in range(0, len(listed), _AT_A_TIME):
        some = listed[start : start + _AT_A_TIME]
        files = list({one.file for one in some})
        stamps = dict(zip(files, in_threads(stamp_if_there, files), strict=True))
        there = {file: stamp for file, stamp in stamps.items() if stamp}
        found = dict(zip(there, known.of(list(there.values())), strict=True))
        unknown = [file for file, digest in found.items() if not (digest or file in digests)]
        digests.update(zip(unknown, in_threads(_digest_if_readable, unknown), strict=True))
        for one in some:
            stamp, digest = stamps[one.file], found.get(one.file) or digests.get(one.file, "")
            size = stamp[1] if stamp and digest else None
            yield Entry(one.where, str(Path(one.file)), size, digest[:_DIGITS], one.text)


def entry(where: str, file: str, size_bytes: int, sha256: str) -> Entry:
    """Return the entry of a file that is known, though it need not be one of this machine."""
    return Entry(where, file, size_bytes, sha256[:_DIGITS])


def lines(path: Path) -> Iterator[Entry]:
    """Yield an entry for each line of a text file; a single one for a file that cannot be read."""
    try:
        texts = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError):  # the latter for what is not UTF-8
        yield Entry(str(path), str(path))
        return
    yield from (Entry(f"{path}: line {number}", text=text.strip()) for number, text in enumerate(texts, start=1))


def encoded(index: Iterable[Entry]) -> bytes:
    """Return an index as compressed lines of JSON; nothing for none."""
    stream = io.BytesIO()
    count = 0
    with gzip.GzipFile(fileobj=stream, mode="wb", mtime=0) as packed:
        for entry in index:
            packed.write(json.dumps(asdict(entry)).encode() + b"\n")
            count += 1
    return stream.getvalue() if count else b""


def decoded(content: bytes) -> Iterator[Entry]:
    """Yield the entries of an index.

    Raises:
        ValueError: if it is no index, or damaged.
    """
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content), mode="rb") as packed:
            # No line is longer: what was made to unpack to more is cut, and no entry.
            yield from map(_entry.validate_json, iter(partial(packed.readline, _MOST_BYTES), b""))
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"it is damaged: {error}") from error


_entry: TypeAdapter[Entry] = TypeAdapter(Entry)


def _digest_if_readable(path: str) -> str:
    try:
        return digest_file(Path(path))
    except OSError:
        return ""
