"""What was found out about a data set of many files, remembered on this machine for as long as no file changes.

Beside an answer lie the paths of all files that it came from and a digest of their stamps (size, times of writing and
of change). Asking again looks at the stamps: no list is parsed, and no file opened. What the code that finds it out
looks like is part of an answer's name, so that none outlives its code.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from array import array
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from pydantic import JsonValue

from ubt.common.atomic_files import write_whole
from ubt.common.hashing import digest_bytes, digest_file, fingerprint
from ubt.common.paths import cache_root
from ubt.data.digests import files_looked_at, in_threads

_AT_A_TIME = 4096
"""Files that one thread looks at in turn: on a local disk looking takes microseconds."""
_HEAD_BYTES, _LINE_BYTES = 64, 1024
"""Of the digest that a file begins with; and most of it with the line behind, which says how long the answer is."""

_log = logging.getLogger(__name__)


def remembered(asked: JsonValue, lists: Sequence[JsonValue], find_out: Callable[[], str]) -> str:
    """Return what `find_out` answered when the same was asked, if all files that it looked at are as they were.

    Args:
        asked: what the answer depends on beside files.
        lists: the stamps of files that say which other files there are; those need not be looked at by `find_out`.
        find_out: answers of what it learns by `ubt.data.digests.FileFacts`; the answer may be long.
    """
    name = fingerprint({"asked": asked, "lists": list(lists), "code": _code()})
    memo = cache_root() / "data" / f"{fingerprint(asked)[:16]}-{name}.known"
    known = _recall(memo)
    if known:
        return known
    with files_looked_at() as looked_at:
        answer = find_out()
    # As they were before they were read: what has changed since is noticed by who asks next.
    paths = [path for path, *_ in looked_at.values()]
    if paths and not any("\n" in path for path in paths):
        _keep(memo, answer, paths, digest_bytes(*(array("q", times).tobytes() for _, *times in looked_at.values())))
    return answer


def _keep(memo: Path, answer: str, paths: Sequence[str], stamps: str) -> None:
    said, files = (text.encode(errors="surrogateescape") for text in (answer, "\n".join(paths)))
    content = b"\n".join([json.dumps({"answer_bytes": len(said), "stamps": stamps}).encode(), said + files])
    try:
        write_whole(memo, digest_bytes(content).encode() + content)
        # What the same question was answered of other lists, or by other code, may be tens of megabytes.
        for older in memo.parent.glob(f"{memo.name.partition('-')[0]}-*.known"):
            if older != memo:
                older.unlink(missing_ok=True)
    except OSError as error:
        _log.warning("what is known of the data is not remembered and will be found out again: %s", error)


def _recall(memo: Path) -> str:
    """Return the answer that is remembered; nothing if there is none, a file has changed, or it is damaged."""
    try:
        content = memoryview(memo.read_bytes())
        if digest_bytes(content[_HEAD_BYTES:]).encode() != content[:_HEAD_BYTES]:
            return ""
        line_end = bytes(content[:_LINE_BYTES]).index(b"\n")
        found = json.loads(bytes(content[_HEAD_BYTES:line_end]))
        files = line_end + 1 + int(found["answer_bytes"])
        paths = bytes(content[files:]).decode(errors="surrogateescape").split("\n")
        if _stamps(paths) != found["stamps"]:
            return ""
        return bytes(content[line_end + 1 : files]).decode(errors="surrogateescape")
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _stamps(paths: Sequence[str]) -> str:
    """Return a digest of the stamps of files, in their order; nothing if one is not there, or there are none."""
    digest = hashlib.sha256()
    try:
        for some in in_threads(
            _packed, [paths[start : start + _AT_A_TIME] for start in range(0, len(paths), _AT_A_TIME)], 1
        ):
            digest.update(some)
    except (OSError, ValueError):
        return ""
    return digest.hexdigest() if paths else ""


def _packed(paths: Sequence[str]) -> bytes:
    numbers = array("q")
    for path in paths:
        state = os.stat(path)  # noqa: PTH116 — a `Path` of each would take as long again
        numbers.extend((state.st_size, state.st_mtime_ns, state.st_ctime_ns))
    return numbers.tobytes()


@cache
def _code() -> str:
    """Return a digest of the modules that read data."""
    return digest_bytes(*(digest_file(path).encode() for path in sorted(Path(__file__).parents[1].rglob("*.py"))))
