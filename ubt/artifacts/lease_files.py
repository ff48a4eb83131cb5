"""Where leases lie in a store: a small file for each piece of work being done, and one for each process's heartbeat.

What a file system has to offer for that is little: a name is taken by one of all who want it, and is freed only for
whom it was taken. A folder (NFS too) and S3 can do it; other object stores have no such promise that fsspec passes on.
"""

from __future__ import annotations

import os
import shutil
import uuid
from abc import ABC, abstractmethod
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ubt.artifacts.patience import Access
from ubt.common.atomic_files import write_whole


class LeaseFiles(ABC):
    """The leases of one store. A slot, `STAGE/KEY`, is held under at most one name; a heartbeat is some bytes."""

    looks_may_be_old = False
    """Whether a file may be there that a look a moment ago, or even one now, does not show."""

    @abstractmethod
    def take(self, slot: str, name: str) -> bool:
        """Hold a slot under a name, if it is free; of several that try at once, one succeeds."""

    @abstractmethod
    def holder(self, slot: str) -> str | None:
        """Return the name under which a slot is held."""

    @abstractmethod
    def free(self, slot: str, name: str) -> None:
        """Let a slot be taken again, if it is held under that name; else do nothing."""

    @abstractmethod
    def announce(self, process: str, content: bytes) -> bool:
        """Write a process's first heartbeat; False if the store keeps no promise that leases rest on."""

    @abstractmethod
    def beat(self, process: str, content: bytes) -> None:
        """Write a process's heartbeat anew."""

    @abstractmethod
    def heartbeat(self, process: str) -> bytes | None:
        """Return a process's newest heartbeat; None if there is none."""

    @abstractmethod
    def silence(self, process: str) -> None:
        """Delete a process's heartbeat, if it is still there."""

    @abstractmethod
    def slots(self) -> list[tuple[str, str]]:
        """Return every slot that is held, and the name under which it is."""

    @abstractmethod
    def processes(self) -> dict[str, datetime]:
        """Return every process of which there is a heartbeat, and when that was written by the store's clock."""


class FolderLeases(LeaseFiles):
    """Leases in a folder. A slot is a folder that holds one empty file, whose name is the one under which it is held.

    To take it, a folder with that file is made elsewhere and renamed: that fails where there is one with a file in it.
    To free it, its file is deleted, which fails if it has another name by now. Both are single steps, on NFS too.
    """

    looks_may_be_old = True
    """NFS: a client remembers for up to a minute that there is no such file."""

    def __init__(self, root: str, access: Access) -> None:
        self._held, self._alive = Path(root, "held"), Path(root, "alive")
        self._access = access

    def take(self, slot: str, name: str) -> bool:
        """As `LeaseFiles.take`."""
        target = self._held / slot
        made = target.with_name(f".{uuid.uuid4().hex}")
        with self._access("written"):
            made.mkdir(parents=True)
            try:
                (made / name).touch()
                made.rename(target)  # an empty folder, left by who was just freeing it, is replaced
            except OSError:
                # A server that lost its answer to the first call answers the second: it may have been done.
                if not target.is_dir():
                    raise
                return (target / name).exists()
            finally:
                shutil.rmtree(made, ignore_errors=True)
        return True

    def holder(self, slot: str) -> str | None:
        """As `LeaseFiles.holder`."""
        with self._access("read"):
            try:
                names = [path.name for path in (self._held / slot).iterdir()]
            except FileNotFoundError:
                return None
            return next((name for name in names if not name.startswith(".")), None)

    def free(self, slot: str, name: str) -> None:
        """As `LeaseFiles.free`."""
        target = self._held / slot
        with self._access("written"):
            (target / name).unlink(missing_ok=True)
            with suppress(OSError):  # somebody else holds it now
                target.rmdir()

    def announce(self, process: str, content: bytes) -> bool:
        """As `LeaseFiles.announce`; every folder keeps the promise."""
        self.beat(process, content)
        return True

    def beat(self, process: str, content: bytes) -> None:
        """As `LeaseFiles.beat`."""
        with self._access("written"):
            write_whole(self._alive / process, content)

    def heartbeat(self, process: str) -> bytes | None:
        """As `LeaseFiles.heartbeat`."""
        with self._access("read"):
            with suppress(FileNotFoundError):
                os.scandir(self._alive).close()  # a client of NFS asks its server when a folder is opened
                return (self._alive / process).read_bytes()
            return None

    def silence(self, process: str) -> None:
        """As `LeaseFiles.silence`."""
        with self._access("written"):
            (self._alive / process).unlink(missing_ok=True)

    def slots(self) -> list[tuple[str, str]]:
        """As `LeaseFiles.slots`."""
        with self._access("read"):
            found = sorted(path for path in self._held.glob("*/*/*") if not path.parent.name.startswith("."))
        return [(path.parent.relative_to(self._held).as_posix(), path.name) for path in found]

    def processes(self) -> dict[str, datetime]:
        """As `LeaseFiles.processes`."""
        found = {}
        with self._access("read"):
            for path in self._alive.glob("[!.]*"):
                with suppress(FileNotFoundError):
                    found[path.name] = datetime.fromtimestamp(path.stat().st_mtime, UTC)
        return found


class S3Leases(LeaseFiles):
    """Leases in S3. A slot is an object whose content is the name under which it is held.

    `If-None-Match` lets one of several writers make it; `If-Match` deletes it only for whom it was made.
    """

    def __init__(self, files: object, root: str, access: Access) -> None:
        self._files: Any = files  # s3fs, which has no types
        self._held, self._alive = f"{root}/held/", f"{root}/alive/"
        self._access = access
        self._tags: dict[str, str] = {}
        """Of the objects that were made here: name → ETag."""

    def take(self, slot: str, name: str) -> bool:
        """As `LeaseFiles.take`."""
        # The client asks again when an answer is lost: the object that is in its way may be its own.
        return self._made(self._held + slot, name.encode(), name) or self.holder(slot) == name

    def holder(self, slot: str) -> str | None:
        """As `LeaseFiles.holder`."""
        content = self._content(self._held + slot)
        return None if content is None else content.decode(errors="replace")

    def free(self, slot: str, name: str) -> None:
        """As `LeaseFiles.free`."""
        tag = self._tags.pop(name, "")
        with self._access("written"), suppress(FileNotFoundError):
            if not tag:
                self._files.invalidate_cache(self._held + slot)
                tag = self._files.info(self._held + slot)["ETag"]
                if self.holder(slot) != name:
                    return
            bucket, key, _ = self._files.split_path(self._held + slot)
            try:
                self._files.call_s3("delete_object", Bucket=bucket, Key=key, IfMatch=tag)
            except OSError as error:
                if not _refused(error):
                    raise

    def announce(self, process: str, content: bytes) -> bool:
        """As `LeaseFiles.announce`. A store that lets the object be made twice does not know the condition."""
        self._made(self._alive + process, content)
        return not self._made(self._alive + process, content)

    def beat(self, process: str, content: bytes) -> None:
        """As `LeaseFiles.beat`."""
        with self._access("written"):
            self._files.pipe_file(self._alive + process, content)

    def heartbeat(self, process: str) -> bytes | None:
        """As `LeaseFiles.heartbeat`."""
        return self._content(self._alive + process)

    def silence(self, process: str) -> None:
        """As `LeaseFiles.silence`."""
        with self._access("written"), suppress(FileNotFoundError):
            self._files.rm_file(self._alive + process)

    def slots(self) -> list[tuple[str, str]]:
        """As `LeaseFiles.slots`."""
        slots = [path.removeprefix(self._held) for path in self._listed(self._held)]
        return [(slot, name) for slot in slots if (name := self.holder(slot)) is not None]

    def processes(self) -> dict[str, datetime]:
        """As `LeaseFiles.processes`."""
        listed = self._listed(self._alive)
        return {path.removeprefix(self._alive): info["LastModified"] for path, info in listed.items()}

    def _made(self, path: str, content: bytes, name: str = "") -> bool:
        """Make an object, if there is none of that name."""
        with self._access("written"):
            try:
                answer = self._files.pipe_file(path, content, mode="create")
            except OSError as error:
                if not _refused(error):
                    raise
                return False
        if name:
            self._tags[name] = answer["ETag"]
        return True

    def _content(self, path: str) -> bytes | None:
        with self._access("read"):
            try:
                content: bytes = self._files.cat_file(path)
            except FileNotFoundError:
                return None
            return content

    def _listed(self, prefix: str) -> dict[str, dict[str, Any]]:
        with self._access("read"):
            try:
                return dict(sorted(self._files.find(prefix, detail=True).items()))
            except FileNotFoundError:
                return {}


def _refused(error: BaseException) -> bool:
    """Tell whether S3 did not do something as its condition was not met, or another writer was quicker."""
    response = getattr(error, "response", None) or getattr(error.__cause__, "response", None) or {}
    return response.get("Error", {}).get("Code") in {"PreconditionFailed", "ConditionalRequestConflict", "412", "409"}
