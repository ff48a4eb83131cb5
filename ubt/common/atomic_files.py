"""Files that appear whole or not at all, and are made once however many processes want them.

Whole for readers costs a rename. What must still be there after a loss of power is `lasting`: it has reached the disk,
its name too, when the call returns. That costs some milliseconds, so it is for what nothing else can bring back (a
trial's result, an artifact) and for what is trusted unseen ever after; not for what the next step writes again.
"""

from __future__ import annotations

import errno
import itertools
import logging
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from ubt.common.errors import Problem, UserError

_SILENT_SECONDS = 5.0
"""How long a process waits for another's file before it says so."""
NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP)
"""What a file system answers that cannot lock a file."""
_NO_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EROFS)
"""What a file system answers that has nothing to sync: for a folder, say."""

_log = logging.getLogger(__name__)


@contextmanager
def whole_file(path: Path, lasting: bool = False, called: Callable[[], str] | None = None) -> Iterator[Path]:
    """Yield a name beside `path` to write to; the file moves to `path` in one step when the block ends well.

    A reader never sees half a file, and a full disk or a killed process leaves the old one; so does a loss of power
    if it is `lasting`, else the file may be empty after one. Folders are made as needed. A file that is `called` by its
    content has that name in place of the one in `path`.

    Raises:
        OSError: if the disk is full or not writable.
    """
    made = _make_folder(path.parent)
    # No process's number: on a folder that nodes share, one of another node may have the same.
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        yield unfinished
        if lasting:
            _to_disk(unfinished)
        unfinished.replace(path.with_name(called()) if called else path)
        if lasting:
            for folder in (path.parent, *made):
                _to_disk(folder)
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield a folder beside `path` to write into, which takes the place of `path` when the block ends well.

    What was there before is then deleted. A full disk, an error or a loss of power leaves it as it was.

    Raises:
        OSError: if the disk is full or not writable.
    """
    path = path.absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished, replaced = (path.with_name(f".{path.name}.{uuid.uuid4().hex}") for _ in range(2))
    unfinished.mkdir()
    try:
        yield unfinished
        for written in (*unfinished.rglob("*"), unfinished):
            _to_disk(written)
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


def write_whole(path: Path, content: str | bytes, lasting: bool = False) -> Path:
    """Write `content` to `path` by way of `whole_file`, and return the path.

    Raises:
        OSError: if the disk is full or not writable.
    """
    with whole_file(path, lasting) as unfinished:
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


class NotMadeYet(Exception):
    """A file would have to be made that only one which is there was wanted of."""


_MAKES: ContextVar[bool] = ContextVar("makes", default=True)


@contextmanager
def only_what_is_there() -> Iterator[None]:
    """Have `made_once` make nothing, in this thread: what is missing raises `NotMadeYet`. For those who only look."""
    token = _MAKES.set(False)
    try:
        yield
    finally:
        _MAKES.reset(token)


def check_may_make(path: Path) -> None:
    """Raise `NotMadeYet` inside `only_what_is_there`: `path` would have to be made."""
    if not _MAKES.get():
        raise NotMadeYet(f"{path} is not there")


def made_once(path: Path, make: Callable[[Path], object]) -> Path:
    """Return `path`; a file that is missing is first made by `make`, which writes to the name that it is given.

    Of all processes that want the file, on every node that sees its folder, one makes it and the others wait.

    Raises:
        NotMadeYet: if it is missing inside `only_what_is_there`.
        OSError: if the disk is full or not writable.
    """
    if not path.exists():
        check_may_make(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with alone(path):
            if not path.exists():
                with whole_file(path, lasting=True) as unfinished:  # its content is not checked again
                    make(unfinished)
    return path


def set_aside(path: Path) -> Path:
    """Take a damaged file out of use by another name beside it, which is returned: somebody may want to look at it.

    Raises:
        OSError: if the folder is not writable.
    """
    return path.rename(path.with_name(f"{path.name}.damaged-{uuid.uuid4().hex[:8]}"))


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


def _make_folder(folder: Path) -> list[Path]:
    """Make a folder; return the folders that have a new one in them."""
    missing = list(itertools.takewhile(lambda one: not one.exists(), (folder, *folder.parents)))
    folder.mkdir(parents=True, exist_ok=True)
    return [one.parent for one in missing]


def _to_disk(path: Path) -> None:
    """Return when a file's content, or the names in a folder, have reached the disk.

    Raises:
        OSError: if they do not; some file systems find out here that the disk is full.
    """
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
    finally:
        os.close(opened)


@contextmanager
def alone(path: Path) -> Iterator[None]:
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
