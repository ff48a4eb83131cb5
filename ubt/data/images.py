"""Images decoded once, by processes, into one memory-mapped uint8 file that a machine's workers share."""

from __future__ import annotations

import multiprocessing
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np

from ubt.common.atomic_files import made_once, reserve
from ubt.common.errors import Problem, UserError
from ubt.common.hashing import digest_bytes
from ubt.common.memory import let_go
from ubt.common.progress import progress
from ubt.data.base import Images
from ubt.data.decode import (
    DECODER_VERSION,
    DEEP_VERSION,
    DRAFT_VERSION,
    Pixels,
    broken_reasons,
    decode_images,
    is_deep,
)
from ubt.data.digests import FileFacts
from ubt.data.tables import Row, gather, with_advice

KEPT = re.compile(r"\.?(images|scenes|captions)-.+\.(npy|json)(\..+)?")
"""Names of the files that data sets keep in their cache, whole or unfinished: it may be a folder with others in it."""


def cached_images(path: Path, count: int, size_px: int, fill: Callable[[Images], None]) -> Images:
    """Return `images[count, size_px, size_px, 3]` (uint8, read-only, memory-mapped) from `path`.

    A missing file is made by `fill`, which writes into the array it is given: in one process, while others that
    want the same file wait. It appears under its name only when it is whole, so a killed one leaves no harm.

    Raises:
        OSError: if the disk lacks the space, before anything is decoded; or if it cannot be written.
    """

    def decode(unfinished: Path) -> None:
        shape = (count, size_px, size_px, 3)
        images = np.lib.format.open_memmap(unfinished, mode="w+", dtype=np.uint8, shape=shape)
        reserve(unfinished)
        fill(images)
        images.flush()

    made_once(path, decode)
    return mapped_images(path)


@contextmanager
def growing_images(path: Path, size_px: int) -> Iterator[Callable[[Pixels], None]]:
    """Yield what adds an image `[size_px, size_px, 3]` to a new file, for when their number is not known before.

    When the block ends well, the file is the one that `cached_images` makes of as many.
    """
    count = 0
    with path.open("wb") as stream:

        def begin() -> int:
            described = {"descr": "|u1", "fortran_order": False, "shape": (count, size_px, size_px, 3)}
            np.lib.format.write_array_header_1_0(stream, described)
            return stream.tell()

        def add(pixels: Pixels) -> None:
            nonlocal count
            stream.write(np.ascontiguousarray(pixels).data)
            count += 1

        behind = begin()
        yield add
        stream.seek(0)
        if begin() != behind:  # numpy leaves space for the digits of any number
            raise OSError(f"{count} images do not fit behind the head of {path}")


def mapped_images(path: Path) -> Images:
    """Return the images in a file that is there, read-only and mapped."""
    mapped: Images = np.load(path, mmap_mode="r", allow_pickle=False)
    return mapped


def image_digest(rows: Sequence[Row], label: str, draft: bool = False) -> str:
    """Return a SHA-256 over the image files of `rows` in their order, and over how they are decoded.

    The latter where deep ones are among them, or drafts of them are taken.
    """
    facts = FileFacts([row.file for row in rows], f"{label} images")
    digest = facts.digest()
    if facts.any("deep", is_deep):
        digest = digest_bytes(f"{digest} deep {DEEP_VERSION}".encode())
    return digest_bytes(f"{digest} draft {DRAFT_VERSION}".encode()) if draft else digest


def image_cache(cache: Path, content: str, size_px: int) -> Path:
    """Return where images of this content are kept once decoded: the name changes with all that matters."""
    return cache / f"images-{content[:32]}-v{DECODER_VERSION}-{size_px}px.npy"


FEW = 256
"""Fewer images are decoded in this process: starting others takes longer."""
_CHUNK = 32
_WRITTEN = 4096
"""Images after which what was written counts as this process's memory no longer."""
_AHEAD = 3  # chunks in flight for each process: enough to keep it busy, few enough to hold in memory

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Encoded:
    """An image before it is decoded: a file, or its bytes, and where it comes from."""

    where: str
    content: Path | bytes

    @property
    def name(self) -> str:
        """The image in words, for messages."""
        return str(self.content) if isinstance(self.content, Path) else "the image"


class Decoders:
    """Processes that decode images; they start when first needed and end with the `with` block."""

    def __init__(self, workers: int | None, draft: bool = False) -> None:
        self._workers, self._draft = workers, draft
        self._at_the_end = ExitStack()

    def __enter__(self) -> Decoders:
        return self

    def __exit__(self, *_: object) -> None:
        self._at_the_end.close()

    @cached_property
    def _processes(self) -> int:
        if self._workers:
            return self._workers
        from joblib import cpu_count  # noqa: PLC0415 — 0.2 s, and most images are decoded already

        usable: int = cpu_count()  # unlike `os`, it knows affinity and a container's limit
        return usable

    @cached_property
    def _pool(self) -> ProcessPoolExecutor:
        # Spawned, because a fork of this process would leave the locks of its threads (torch, Ray) locked.
        pool = ProcessPoolExecutor(self._processes, mp_context=multiprocessing.get_context("spawn"))
        self._at_the_end.callback(pool.shutdown, cancel_futures=True)
        return pool

    def decode_into(self, images: Images, encoded: Iterable[Encoded], label: str) -> None:
        """Fill `images[N, H, H, 3]` with the N images `encoded`.

        Raises:
            UserError: naming every image that cannot be decoded; or if there are not N; or if a process died.
        """
        problems: list[Problem] = []
        count = 0
        decoded = islice(self.decoded(encoded, images.shape[1], label, len(images) < FEW), len(images))
        for result in progress(decoded, len(images), f"decoding {label}"):
            if isinstance(result, Problem):
                problems.append(result)
            else:
                images[count] = result
            count += 1
            if count % _WRITTEN == 0:
                let_go(images)  # a worker maps what it reads of them
        problems = with_advice(problems)
        if count != len(images):
            message = f"changed while it was read: {count} images instead of {len(images)}"
            problems.append(Problem(label, message))
        if problems:
            raise UserError(problems)

    def decoded(self, encoded: Iterable[Encoded], size_px: int, label: str, few: bool) -> Iterator[Pixels | Problem]:
        """Yield for each image its pixels `[H, H, 3]`, or why there are none. If there are `few`, this process decodes.

        Raises:
            UserError: if a process died.
        """
        with _deaths(f"decoding {label}"):
            for source, result in self._worked(encoded, decode_images, (size_px, self._draft), few):
                if isinstance(result, str):
                    yield Problem(source.where, f"{source.name} cannot be decoded: {result}")
                else:
                    yield result

    def broken_reasons(self, encoded: Iterable[Encoded], label: str, few: bool) -> Iterator[str]:
        """Yield for each image why it cannot be decoded; nothing if it can. If there are `few`, this process looks.

        Raises:
            UserError: if a process died.
        """
        with _deaths(label):
            yield from (reason for _, reason in self._worked(encoded, broken_reasons, (), few))

    def _worked(
        self, encoded: Iterable[Encoded], work: Callable[..., list[Result]], arguments: tuple[int, ...], few: bool
    ) -> Iterator[tuple[Encoded, Result]]:
        """Yield each image with what `work` says of it, given the contents of many and `arguments`."""
        source = iter(encoded)
        chunks = iter(lambda: list(islice(source, _CHUNK)), [])
        if few or self._processes == 1:
            for chunk in chunks:
                yield from zip(chunk, work([each.content for each in chunk], *arguments), strict=True)
            return
        pending: deque[tuple[list[Encoded], Future[list[Result]]]] = deque()
        for chunk in chunks:
            pending.append((chunk, self._pool.submit(work, [each.content for each in chunk], *arguments)))
            if len(pending) >= self._processes * _AHEAD:
                yield from _finished(*pending.popleft())
        for chunk, future in pending:
            yield from _finished(chunk, future)


@contextmanager
def _deaths(label: str) -> Iterator[None]:
    """Turn the death of a process into a `UserError`."""
    try:
        yield
    except BrokenProcessPool as error:
        advice = "it may have lacked memory: set `decode_workers` lower"
        raise UserError(Problem(label, "a process died", advice=advice)) from error


def _finished(chunk: list[Encoded], future: Future[list[Result]]) -> Iterator[tuple[Encoded, Result]]:
    return zip(chunk, future.result(), strict=True)


def decode_rows(
    splits: Mapping[str, Sequence[Row]],
    digests: Mapping[str, str],
    size_px: int,
    cache: Path,
    decoders: Decoders,
    problems: list[Problem],
) -> dict[str, Images]:
    """Return the images `[N, size_px, size_px, 3]` of each split, decoding what the cache does not hold.

    Adds to `problems` every image that cannot be decoded, and leaves out its split.
    """
    images = {}
    for name, rows in splits.items():
        encoded = (Encoded(row.where, row.image) for row in rows)
        with gather(problems):
            fill = partial(decoders.decode_into, encoded=encoded, label=name)
            path = image_cache(cache, digests[name], size_px)
            images[name] = cached_images(path, len(rows), size_px, fill)
    return images
