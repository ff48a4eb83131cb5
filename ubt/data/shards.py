"""Tar files of image–caption pairs: which files a pattern means, and the samples in them."""

from __future__ import annotations

import re
import shutil
import tarfile
import zlib
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Self
from urllib.parse import unquote, urlsplit, urlunsplit
from urllib.request import Request, urlopen

from braceexpand import braceexpand

from ubt.common.atomic_files import made_once
from ubt.common.errors import Problem, UserError
from ubt.common.hashing import fingerprint
from ubt.common.paths import cache_root, is_file
from ubt.common.progress import progress
from ubt.data.content.index import ListedFile
from ubt.data.decode import HEAD_BYTES, UNCLEAR_HEADS, is_deep

_TIMEOUT_SECONDS = 60
_AT_ONCE = 8
"""Files that are fetched at a time."""
_WEB = frozenset(("http", "https"))
_CLOUDS = frozenset(("s3", "gs", "gcs", "az", "abfs"))
"""Kinds of addresses that fsspec opens; others of its kinds could read more than a file is meant to say."""


def downloaded(address: str) -> Path:
    """Return a local copy of the file at an address on the web or in a cloud, fetching it if there is none.

    The copy is never compared with the address again: a study's data must not change under it.

    Raises:
        UserError: if it cannot be fetched completely, or the address is of another kind.
    """
    path = _local_copy(address)
    fetch = _fetch if urlsplit(address).scheme.lower() in _WEB else _fetch_from_cloud
    try:
        return made_once(path, partial(fetch, address))
    except (OSError, HTTPException, ValueError) as error:
        raise UserError(Problem(address, f"cannot be fetched: {error}")) from error


def _local_copy(address: str) -> Path:
    return cache_root() / "shards" / f"{fingerprint(address)}-{PurePosixPath(urlsplit(address).path).name}"


def _fetch_from_cloud(address: str, path: Path) -> None:
    import fsspec  # noqa: PLC0415 — few data sets lie there

    if urlsplit(address).scheme.lower() not in _CLOUDS:
        raise ValueError("the address is of a kind that is not fetched")
    try:
        files, remote = fsspec.url_to_fs(address)
        files.get_file(remote, str(path))
    except FileNotFoundError as error:
        raise OSError("there is no such file") from error
    except ImportError as error:
        raise OSError(f"a package is missing: {error}") from error
    except Exception as error:
        raise OSError(f"{type(error).__name__}: {error}") from error


def _fetch(address: str, path: Path) -> None:
    if urlsplit(address).scheme.lower() not in _WEB:
        raise ValueError("the address is neither http nor https")
    with urlopen(_request(address), timeout=_TIMEOUT_SECONDS) as reply, path.open("wb") as stream:  # noqa: S310 — checked
        shutil.copyfileobj(reply, stream)
        promised = reply.headers.get("Content-Length")
    # A connection that breaks looks like the end of the file.
    if promised is not None and int(promised) != path.stat().st_size:
        raise OSError(f"{path.stat().st_size} of {promised} bytes came")


def _request(address: str) -> Request:
    """Return what is asked for; urllib takes a user and a password in an address for its host, and quotes them."""
    parts = urlsplit(address)
    try:
        user, password, _ = unquote(parts.username or ""), unquote(parts.password or ""), parts.port
    except ValueError:
        raise ValueError("host and port cannot be read: in a password / is written %2F, and @ is %40") from None
    request = Request(urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])))  # noqa: S310 — checked
    if user:
        # Not sent on to another host that this one may lead to.
        request.add_unredirected_header("Authorization", f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}")
    return request


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


def find_shards(pattern: str, problems: list[Problem]) -> list[Path]:
    """Return the files that a pattern means (`cc3m-{0000..0331}.tar`); `::` joins several patterns.

    Shards at addresses on the web or in a cloud are fetched once and kept. Adds to `problems` files that are missing
    and any other kind of address, above all `pipe:`, which would be a shell command.
    """
    try:
        names = _names(pattern)
    except ValueError as error:
        problems.append(Problem("pairs", f"is no pattern of shards: {error}", pattern))
        return []
    found: list[list[Problem]] = [[] for _ in names]
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        looked = threads.map(_found, names, found)
        to_fetch = any(_SCHEME.match(name) and not _local_copy(name).exists() for name in names)
        paths = [*(progress(looked, len(names), "fetching shards") if to_fetch else looked)]
    problems.extend(problem for those in found for problem in those)
    return [path for those in paths for path in those]


def listed_shards(pattern: str) -> list[ListedFile]:
    """Return the files that a valid pattern means, whether they are there or not: of addresses the local copies."""
    return [ListedFile(name, str(_local_copy(name) if _SCHEME.match(name) else name)) for name in _names(pattern)]


def _names(pattern: str) -> list[str]:
    return [name for part in pattern.split(JOINT) for name in braceexpand(part)]


def _found(name: str, problems: list[Problem]) -> list[Path]:
    """Return the one file that `name` means, or none."""
    scheme = _SCHEME.match(name)
    try:
        if scheme is None:
            path = Path(name)
        elif scheme[1].lower() in _WEB | _CLOUDS:
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


def read_samples(shards: Sequence[Path], problems: list[Problem]) -> Iterator[Sample]:
    """Yield the samples of `shards` in order, also those that lack an image or a caption.

    Adds to `problems` shards that cannot be read to their end.
    """
    for shard in shards:
        try:
            with tarfile.open(shard, tarinfo=_Member) as tar:
                for key, members in _grouped(tar):
                    yield _sample(f"{shard}: sample {key}", tar, members)
        except _DAMAGE as error:
            problems.append(Problem(str(shard), f"cannot be read: {str(error).partition(':')[0]}"))


def has_deep_images(shard: Path) -> bool:
    """Return whether a shard holds an image that `is_deep`; what cannot be read is reported when it is read."""
    try:
        with tarfile.open(shard, tarinfo=_Member) as tar:
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
