"""Tar files of image–caption pairs: which files a pattern means, and the samples in them."""

from __future__ import annotations

import re
import shutil
import tarfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit
from urllib.request import urlopen

from braceexpand import braceexpand

from ubt.common.atomic_files import made_once
from ubt.common.errors import Problem, UserError
from ubt.common.hashing import fingerprint
from ubt.common.paths import cache_root

_TIMEOUT_SECONDS = 60


def downloaded(address: str) -> Path:
    """Return a local copy of the file at an http(s) address, fetching it if there is none.

    The copy is never compared with the address again: a study's data must not change under it.

    Raises:
        UserError: if it cannot be fetched completely, or the address is of another kind.
    """
    path = cache_root() / "shards" / f"{fingerprint(address)}-{PurePosixPath(urlsplit(address).path).name}"
    try:
        return made_once(path, partial(_fetch, address))
    except (OSError, HTTPException, ValueError) as error:
        raise UserError(Problem(address, f"cannot be fetched: {error}")) from error


def _fetch(address: str, path: Path) -> None:
    if urlsplit(address).scheme not in {"http", "https"}:
        raise ValueError("the address is neither http nor https")
    with urlopen(address, timeout=_TIMEOUT_SECONDS) as reply, path.open("wb") as stream:  # noqa: S310 — checked
        shutil.copyfileobj(reply, stream)
        promised = reply.headers.get("Content-Length")
    # A connection that breaks looks like the end of the file.
    if promised is not None and int(promised) != path.stat().st_size:
        raise OSError(f"{path.stat().st_size} of {promised} bytes came")


IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "webp")
JOINT = "::"
"""Between patterns of shards that make up one data set."""
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):")
_DAMAGE = (OSError, EOFError, ValueError, tarfile.TarError, zlib.error)


@dataclass(frozen=True)
class Sample:
    """One pair as it lies in a shard: the bytes of an image file, and its caption."""

    where: str
    image: bytes
    caption: str


def find_shards(pattern: str, problems: list[Problem]) -> list[Path]:
    """Return the tar files that a pattern means (`cc3m-{0000..0331}.tar`); `::` joins several patterns.

    Shards at http(s) addresses are fetched once and kept. Adds to `problems` files that are missing and any
    other kind of address, above all `pipe:`, which webdataset would run as a shell command.
    """
    try:
        names = [name for part in pattern.split(JOINT) for name in braceexpand(part)]
    except ValueError as error:
        problems.append(Problem("pairs", f"is no pattern of shards: {error}", pattern))
        return []
    return [path for name in names for path in _found(name, problems)]


def read_samples(shards: Sequence[Path], problems: list[Problem]) -> Iterator[Sample]:
    """Yield the samples of `shards` in order; one without image or caption has an empty one.

    Adds to `problems` each such sample, and shards that cannot be read to their end.
    """
    for shard in shards:
        try:
            for key, members in _grouped(shard):
                yield _sample(f"{shard}: sample {key}", members, problems)
        except _DAMAGE as error:
            # webdataset appends the stream and the address to the arguments; the first says what it is.
            problems.append(Problem(str(shard), f"cannot be read: {error.args[0] if error.args else error}"))


def _found(name: str, problems: list[Problem]) -> list[Path]:
    """Return the one file that `name` means, or none."""
    scheme = _SCHEME.match(name)
    try:
        if scheme is None:
            path = Path(name)
        elif scheme[1].lower() in {"http", "https"}:
            path = downloaded(name)
        else:
            why = "pipe: runs shell commands" if scheme[1].lower() == "pipe" else f"{scheme[1]}: is not supported"
            advice = "give paths of tar files, or http(s) addresses"
            problems.append(Problem("pairs", f"refused: {why}", name, advice))
            return []
        if path.is_file():
            return [path]
        problems.append(Problem("pairs", f"no such shard: {path}"))
    except UserError as error:
        problems.extend(error.problems)
    return []


def _grouped(shard: Path) -> Iterator[tuple[str, Mapping[str, bytes]]]:
    """Yield key and members of the samples of a shard, as webdataset groups them: {"jpg": …, "txt": …}."""
    from webdataset.tariterators import group_by_keys, tar_file_expander  # noqa: PLC0415 — it loads torch

    with shard.open("rb") as stream:
        # Given an open file, webdataset never sees an address and cannot run anything to open it.
        for sample in group_by_keys(tar_file_expander([{"url": str(shard), "stream": stream}])):
            yield sample["__key__"], {name: part for name, part in sample.items() if isinstance(part, bytes)}


def _sample(where: str, members: Mapping[str, bytes], problems: list[Problem]) -> Sample:
    image = next((members[suffix] for suffix in IMAGE_SUFFIXES if suffix in members), b"")
    try:
        text = members.get("txt", b"").decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        problems.append(Problem(where, f"the caption is not UTF-8: {error}"))
        return Sample(where, image, "")
    if not image:
        problems.append(Problem(where, f"has no image; looked for {', '.join(IMAGE_SUFFIXES)}"))
    if not text:
        problems.append(Problem(where, "has no caption; looked for txt"))
    return Sample(where, image, text)
