"""Tar files of image–caption pairs: which files a pattern means, and the samples in them."""

from __future__ import annotations

import re
import tarfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Self

from braceexpand import braceexpand

from ubt.common.errors import Problem, UserError
from ubt.common.paths import is_file
from ubt.common.progress import progress
from ubt.data.addresses.clouds import CLOUDS, CloudFile, is_in_cloud, seen
from ubt.data.addresses.fetched import WEB, downloaded, local_copy
from ubt.data.addresses.streamed import Opened, Shard
from ubt.data.content.index import ListedFile
from ubt.data.decode import HEAD_BYTES, UNCLEAR_HEADS, is_deep

_AT_ONCE = 8
"""Files that are fetched, or looked at, at a time."""
IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "webp")
CAPTION_SUFFIX = "txt"
JOINT = "::"
"""Between patterns of shards that make up one data set."""
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):")
_DAMAGE = (OSError, EOFError, ValueError, tarfile.TarError, zlib.error)


@dataclass(frozen=True)
class Sample:
    """One pair as it lies in a shard: an image file or its bytes, and its caption."""

    where: str
    image: bytes | Path
    caption: str
    troubles: tuple[str, ...] = ()
    """What it lacks; then it is no pair."""


def find_shards(pattern: str, problems: list[Problem], streamed: bool = False) -> list[Shard]:
    """Return the files that a pattern means (`cc3m-{0000..0331}.tar`); `::` joins several patterns.

    Shards at addresses on the web or in a cloud are fetched once and kept; if they are to be `streamed`, those in a
    cloud are only looked at, unless there is a copy. Adds to `problems` files that are missing and any other kind of
    address, above all `pipe:`, which would be a shell command.
    """
    try:
        names = _names(pattern)
    except ValueError as error:
        problems.append(Problem("pairs", f"is no pattern of shards: {error}", pattern))
        return []
    found: list[list[Problem]] = [[] for _ in names]
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        looked = threads.map(partial(_found, streamed), names, found)
        to_fetch = any(
            _SCHEME.match(name) and not local_copy(name).exists() and not (streamed and is_in_cloud(name))
            for name in names
        )
        shards = [*(progress(looked, len(names), "fetching shards") if to_fetch else looked)]
    problems.extend(problem for those in found for problem in those)
    return [shard for those in shards for shard in those]


def listed_shards(pattern: str) -> list[ListedFile]:
    """Return the files that a valid pattern means, whether they are there or not: of addresses the local copies."""
    return [ListedFile(name, str(local_copy(name) if _SCHEME.match(name) else name)) for name in _names(pattern)]


def _names(pattern: str) -> list[str]:
    return [name for part in pattern.split(JOINT) for name in braceexpand(part)]


def _found(streamed: bool, name: str, problems: list[Problem]) -> list[Shard]:
    """Return the one file that `name` means, or none."""
    scheme = _SCHEME.match(name)
    try:
        if scheme is None:
            path = Path(name)
        elif scheme[1].lower() in WEB | CLOUDS:
            if streamed and is_in_cloud(name) and not local_copy(name).exists() and (shard := _seen(name)):
                return [shard]
            path = downloaded(name)
        else:
            why = "pipe: runs shell commands" if scheme[1].lower() == "pipe" else f"{scheme[1]}: is not supported"
            advice = "give paths of files, or addresses that begin with http://, https:// or s3://"
            problems.append(Problem("pairs", f"refused: {why}", name, advice))
            return []
        if is_file(path):
            return [path]
        problems.append(Problem("pairs", f"no such shard: {path}"))
    except UserError as error:
        problems.extend(error.problems)
    return []


def _seen(address: str) -> CloudFile | None:
    try:
        return seen(address)
    except OSError as error:
        raise UserError(Problem(address, f"cannot be fetched: {error}")) from error


_MOST_BYTES = {CAPTION_SUFFIX: 1 << 20}
_MOST_IMAGE_BYTES = 256 << 20
"""Largest caption and image file that are read: a compressed or sparse member may say that it has any size."""
_MOST_HEADER_BYTES = 1 << 20
_HEADERS = frozenset((tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE))


class _Member(tarfile.TarInfo):
    """A member of a shard. What is said of members (long names, say) is read whole, so it is limited, too."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        member = super().frombuf(buf, encoding, errors)
        if member.type in _HEADERS and member.size > _MOST_HEADER_BYTES:
            raise ValueError(f"a header in it is larger than {_MOST_HEADER_BYTES >> 20} MiB")
        return member


def read_samples(shards: Iterable[Opened], problems: list[Problem]) -> Iterator[Sample]:
    """Yield the samples of `shards` in order, also those that lack an image or a caption.

    Adds to `problems` shards that cannot be read to their end.
    """
    for shard in shards:
        try:
            with _tar(shard) as tar:
                for key, members in _grouped(tar):
                    yield _sample(f"{shard}: sample {key}", tar, members)
        except _DAMAGE as error:
            problems.append(Problem(str(shard), f"cannot be read: {str(error).partition(':')[0]}"))


def _tar(shard: Opened) -> tarfile.TarFile:
    if isinstance(shard, Path):
        return tarfile.open(shard, tarinfo=_Member)
    return tarfile.open(fileobj=shard.file, tarinfo=_Member)


def has_deep_images(shard: Opened) -> bool:
    """Return whether a shard holds an image that `is_deep`; what cannot be read is reported when it is read."""
    try:
        with _tar(shard) as tar:
            images = (
                member for _, members in _grouped(tar) for name, member in members.items() if name in IMAGE_SUFFIXES
            )
            return any(_is_deep(tar, image) for image in images)
    except _DAMAGE:
        return False


def _is_deep(tar: tarfile.TarFile, image: tarfile.TarInfo) -> bool:
    stream = tar.extractfile(image)
    head = b"" if stream is None else stream.read(HEAD_BYTES)
    return is_deep(_content(tar, image) if head.startswith(UNCLEAR_HEADS) else head)


Members = Mapping[str, tarfile.TarInfo]
"""The files of one sample by their suffix."""


def _grouped(tar: tarfile.TarFile) -> list[tuple[str, Members]]:
    """Return key and members of the samples of a shard, in the order in which each begins.

    As webdataset does, a name is a key up to its first dot, and what comes next to each other under one key is one
    sample. Where that leaves a sample without image or caption, the rest of it is looked for in all of the shard
    (which need not be sorted), and then by keys up to the last dot (`photo.v2.jpg` and `photo.v2.txt`).
    """
    files = [(key, suffix.lower(), file) for file in tar if file.isreg() for key, suffix in _key_and_suffix(file.name)]
    runs = [(key, _by_suffix(part)) for key, part in groupby(files, key=lambda each: each[0])]
    times = Counter(key for key, _ in runs)
    scattered = {key for key, members in runs if times[key] > 1 and not _whole(members)}
    if scattered:
        together: dict[str, list[tuple[str, str, tarfile.TarInfo]]] = {}
        for key, suffix, file in files:
            together.setdefault(key, []).append((key, suffix, file))
        runs = [(key, _by_suffix(part)) for key, part in together.items()]
    return [sample for key, members in runs for sample in _by_last_dot(key, members)]


def _key_and_suffix(name: str) -> Iterator[tuple[str, str]]:
    """Yield a member's key and suffix; nothing for what is hidden, says something of the shard, or has no suffix."""
    path = PurePosixPath(name)
    hidden = any(part.startswith((".", "__MACOSX")) for part in path.parts)
    key, dot, suffix = path.name.partition(".")
    if dot and key and not hidden and not re.match(r"__[^/]*__($|/)", name):
        yield name.removesuffix(f".{suffix}"), suffix


def _by_suffix(files: Iterator[tuple[str, str, tarfile.TarInfo]] | list[tuple[str, str, tarfile.TarInfo]]) -> Members:
    members: dict[str, tarfile.TarInfo] = {}
    for _, suffix, file in files:
        if suffix in members:
            raise ValueError(f"it holds {file.name} twice")
        members[suffix] = file
    return members


def _whole(members: Members) -> bool:
    return CAPTION_SUFFIX in members and any(suffix in members for suffix in IMAGE_SUFFIXES)


def _by_last_dot(key: str, members: Members) -> Iterator[tuple[str, Members]]:
    """Yield a sample as it is if it is whole; else those that it falls into by the last dots of its members' names."""
    parts: dict[str, dict[str, tarfile.TarInfo]] = {}
    for name, member in members.items():
        rest, dot, suffix = name.rpartition(".")
        parts.setdefault(f"{key}{dot}{rest}", {})[suffix] = member
    if _whole(members) or (len(parts) == 1 and key in parts):
        yield key, members
    else:
        of_pairs = (CAPTION_SUFFIX, *IMAGE_SUFFIXES)
        yield from ((key, part) for key, part in parts.items() if any(suffix in part for suffix in of_pairs))


def _sample(where: str, tar: tarfile.TarFile, members: Members) -> Sample:
    image = next((_content(tar, members[suffix]) for suffix in IMAGE_SUFFIXES if suffix in members), b"")
    troubles = [] if image else [f"has no image; looked for {', '.join(IMAGE_SUFFIXES)}"]
    caption = members.get(CAPTION_SUFFIX)
    try:
        text = "" if caption is None else _content(tar, caption).decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        return Sample(where, image, "", (*troubles, f"the caption is not UTF-8: {error}"))
    if not text:
        troubles.append(f"has no caption; looked for {CAPTION_SUFFIX}")
    return Sample(where, image, text, tuple(troubles))


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    most = _MOST_BYTES.get(member.name.rpartition(".")[2].lower(), _MOST_IMAGE_BYTES)
    if member.size > most:
        raise ValueError(f"{member.name} is larger than {most >> 20} MiB")
    stream = tar.extractfile(member)
    content = b"" if stream is None else stream.read()
    if len(content) != member.size:
        raise OSError(f"{member.name} is cut off")
    return content
