"""Shards in a cloud, read one after the other as they come: no copy of them stays on this machine.

What is known of their content (digests, and whether deep images are among them) is kept by what the cloud says of them.
That is the same on every machine, so that one of them reads them all to know it, and others are given the answer.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from pydantic import JsonValue

from ubt.common.atomic_files import alone, check_may_make, write_whole
from ubt.common.errors import Problem, UserError
from ubt.common.hashing import digest_bytes, fingerprint
from ubt.common.paths import cache_root
from ubt.common.progress import progress
from ubt.data.addresses.clouds import CloudFile, copy_into
from ubt.data.content.index import Entry, ListedFile, entries, entry
from ubt.data.digests import FileFacts

_AHEAD = 2
"""Shards that are read while the one before them is decoded: so many, and that one, take space on disk at a time."""

Shard = Path | CloudFile
"""A file on disk, or one that is read from its cloud whenever it is wanted."""


@dataclass(frozen=True)
class Fetched:
    """A shard that has been read from its cloud, in a file without a name that goes with it."""

    shard: CloudFile
    file: IO[bytes]
    sha256: str

    def __str__(self) -> str:
        return self.shard.address


Opened = Path | Fetched
"""A shard that can be read now."""


def opened(
    shards: Sequence[Shard], look_at: Callable[[Fetched], None] = lambda shard: None
) -> Generator[Opened, None, None]:
    """Yield shards in order; those in a cloud, which `look_at` is given first, can be read until the next is asked for.

    Raises:
        UserError: if one cannot be read, or is another one meanwhile.
    """
    remote = iter(in_cloud(shards))
    pending: deque[Future[Fetched]] = deque()
    threads = ThreadPoolExecutor(_AHEAD)
    try:
        for shard in shards:
            if isinstance(shard, Path):
                yield shard
                continue
            pending.extend(threads.submit(_fetched, one) for one in islice(remote, 1 + _AHEAD - len(pending)))
            fetched = pending.popleft().result()
            with fetched.file:
                look_at(fetched)
                yield fetched
    finally:
        threads.shutdown(wait=False, cancel_futures=True)


def _fetched(shard: CloudFile) -> Fetched:
    folder = cache_root() / "shards"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = TemporaryFile(dir=folder)  # noqa: SIM115 — closed by who reads it
        sha256 = copy_into(shard, file)
        file.seek(0)
    except OSError as error:
        raise UserError(Problem(shard.address, f"cannot be fetched: {error}")) from error
    return Fetched(shard, file, sha256)


@dataclass(frozen=True)
class Content:
    """What is known of shards in a cloud, in their order."""

    digests: tuple[str, ...]
    """SHA-256 of each."""
    deep: bool
    """Whether one of them holds a deep image (see `ubt.data.decode.is_deep`)."""


def content_file(shards: Sequence[CloudFile]) -> Path:
    """Return where this machine keeps what it knows of shards as they are now, whether it does or not."""
    stamps: list[JsonValue] = [list(shard.stamp) for shard in shards]
    return cache_root() / "digests" / f"shards-{fingerprint(stamps)}.json"


def recalled(shards: Sequence[CloudFile]) -> Content | None:
    """Return what is known of shards; None if nothing is."""
    try:
        found = json.loads(content_file(shards).read_text())
        content = Content(tuple(map(str, found["digests"])), bool(found["deep"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return content if len(content.digests) == len(shards) else None


class Finding:
    """Finds out what is in shards while they are read, and refuses one that is not what was known of it."""

    def __init__(self, shards: Sequence[CloudFile], is_deep: Callable[[Opened], bool]) -> None:
        self._shards, self._is_deep = shards, is_deep
        self._known = recalled(shards)
        self._digests: dict[CloudFile, str] = {}
        self._deep = False

    @property
    def known(self) -> bool:
        """Return whether their content is known already."""
        return self._known is not None

    def look_at(self, fetched: Fetched) -> None:
        """Take note of a shard.

        Raises:
            UserError: if its content is not what it was when it was read last.
        """
        if self._known is None:
            self._digests[fetched.shard] = fetched.sha256
            self._deep = self._deep or self._is_deep(fetched)
            fetched.file.seek(0)
        elif fetched.sha256 != self._known.digests[self._shards.index(fetched.shard)]:
            advice = (
                f"it was read wrongly now or then: try again, or remove {content_file(self._shards)} to read all anew"
            )
            raise UserError(Problem(str(fetched), "has other content than its cloud says", advice=advice))

    def keep(self) -> Content:
        """Return what is known of the shards once all of them have been read, and keep it.

        Raises:
            OSError: if it cannot be written.
        """
        if self._known is None:
            self._known = Content(tuple(self._digests[shard] for shard in self._shards), self._deep)
            found = {"digests": self._known.digests, "deep": self._known.deep}
            write_whole(content_file(self._shards), json.dumps(found), lasting=True)
        return self._known


def content_of(shards: Sequence[CloudFile], is_deep: Callable[[Opened], bool]) -> Content:
    """Return what is known of shards, reading all of them if nothing is.

    Raises:
        UserError: if one cannot be read.
        NotMadeYet: if they would have to be read inside `only_what_is_there`.
        OSError: if what is known cannot be kept.
    """
    found = recalled(shards)
    if found is not None:
        return found
    kept = content_file(shards)
    check_may_make(kept)
    kept.parent.mkdir(parents=True, exist_ok=True)
    with alone(kept):
        finding = Finding(shards, is_deep)
        if not finding.known:
            deque(progress(opened(shards, finding.look_at), len(shards), "reading shards"), maxlen=0)
        return finding.keep()


def in_cloud(shards: Sequence[Shard]) -> list[CloudFile]:
    """Return those of some shards that are in a cloud."""
    return [shard for shard in shards if isinstance(shard, CloudFile)]


def on_disk(shards: Sequence[Shard]) -> list[Path]:
    """Return those of some shards that are files."""
    return [shard for shard in shards if isinstance(shard, Path)]


def is_known(shards: Sequence[Shard]) -> bool:
    """Return whether the content of those in a cloud is known, or there are none."""
    remote = in_cloud(shards)
    return not remote or recalled(remote) is not None


def shard_entries(listed: Sequence[ListedFile], remote: Sequence[CloudFile]) -> Iterator[Entry]:
    """Yield what is `listed` with size and digest: of files, and of those in a cloud as far as it is known."""
    known = recalled(remote)
    sizes = {shard.address: shard.size_bytes for shard in remote}
    digests = dict(zip(sizes, known.digests, strict=True)) if known else {}
    for one in listed:
        if one.where in digests:
            yield entry(one.where, one.where, sizes[one.where], digests[one.where])
        else:
            yield from entries([one])


def digest_of(shards: Sequence[Shard], is_deep: Callable[[Opened], bool]) -> tuple[str, bool]:
    """Return a SHA-256 over the contents of shards in their order, and whether a deep image is in one.

    Both are the same wherever the shards lie. Raises as `content_of`.
    """
    remote, files = in_cloud(shards), on_disk(shards)
    facts = FileFacts(files, "shards")
    if not remote:
        return facts.digest(), facts.any("deep", is_deep)
    content = content_of(remote, is_deep)
    digests = dict(facts.each()) | dict(zip(map(str, remote), content.digests, strict=True))
    whole = digest_bytes("\n".join(digests[str(shard)] for shard in shards).encode())
    return whole, content.deep or facts.any("deep", is_deep)
