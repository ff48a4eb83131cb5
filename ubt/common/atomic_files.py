"""Files that appear whole or not at all, and are made once however many processes want them."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ubt.common.errors import Problem, UserError

_SILENT_SECONDS = 5.0
"""How long a process waits for another's file before it says so."""
NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP)
"""What a file system answers that cannot lock a file."""

_log = logging.getLogger(__name__)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a name beside `path` to write to; the file moves to `path` in one step when the block ends well.

    A reader never sees half a file, and a full disk or a killed process leaves the old one. Folders are made as needed.

    Raises:
        OSError: if the disk is full or not writable.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # No process's number: on a folder that nodes share, one of another node may have the same.
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield a folder beside `path` to write into, which takes the place of `path` when the block ends well.

    What was there before is then deleted. A full disk or an error leaves it as it was.

    Raises:
        OSError: if the disk is full or not writable.
    """
    path = path.absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished, replaced = (path.with_name(f".{path.name}.{uuid.uuid4().hex}") for _ in range(2))
    unfinished.mkdir()
    try:
        yield unfinished
        if path.exists():
            path.rename(replaced)
        try:
            unfinished.rename(path)
        except OSError:
            if replaced.exists():
                replaced.rename(path)
            raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    shutil.rmtree(replaced, ignore_errors=True)


def write_whole(path: Path, content: str | bytes) -> Path:
    """Write `content` to `path` by way of `whole_file`, and return the path.

    Raises:
        OSError: if the disk is full or not writable.
    """
    with whole_file(path) as unfinished:
        unfinished.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def write_asked(path: Path, content: str | bytes, where: str) -> Path:
    """Write `content` to a path that the user has given; `where` says in which option.

    Raises:
        UserError: if it cannot be written there.
    """
    try:
        return write_whole(path, content)
    except OSError as error:
        problem = Problem(where, f"cannot be written: {error}", str(path), "give a file in a folder of yours")
        raise UserError(problem) from error


def made_once(path: Path, make: Callable[[Path], object]) -> Path:
    """Return `path`; a file that is missing is first made by `make`, which writes to the name that it is given.

    Of all processes that want the file, on every node that sees its folder, one makes it and the others wait.

    Raises:
        OSError: if the disk is full or not writable.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(path):
            if not path.exists():
                with whole_file(path) as unfinished:
                    make(unfinished)
    return path


def reserve(path: Path) -> None:
    """Allocate a sparse file's disk space before it is written through memory, where a full disk kills the process.

    Raises:
        OSError: if the disk has too little space.
    """
    size_bytes = path.stat().st_size
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as stream:
            os.posix_fallocate(stream.fileno(), 0, size_bytes)
    elif shutil.disk_usage(path.parent).free < size_bytes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Keep out other processes that would make the same file. That spares work; `whole_file` keeps files whole."""
    from filelock import FileLock, Timeout  # noqa: PLC0415 — 0.1 s, and most files are there already

    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        try:
            lock.acquire(timeout=_SILENT_SECONDS)
        except Timeout:
            _log.warning("another process makes %s; waiting for it", path)
            lock.acquire()
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
        yield
    finally:
        if lock.is_locked:
            # While it is held: a process that waits for it finds the file made, or makes it under a lock of its own.
            Path(lock.lock_file).unlink(missing_ok=True)
            lock.release()
