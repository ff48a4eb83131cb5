"""The files of a store, in a folder, on NFS or S3: read and written whole, with patience.

Beside artifacts these are notes, by which processes find out that they see the same store, and indexes of data sets.
Loads no torch.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import fsspec
from fsspec.implementations.local import LocalFileSystem

from ubt.artifacts.lease_files import FolderLeases, LeaseFiles, S3Leases
from ubt.artifacts.patience import access_to, patiently
from ubt.artifacts.payloads import Part, StoredFile, write_payload
from ubt.common.atomic_files import write_whole
from ubt.common.errors import Problem, UserError
from ubt.common.paths import expanded

Result = TypeVar("Result")

_INDEX = ".jsonl.gz"
_ADVICE = "give another one with `store:` in the study, or $UBT_STORE"


class UnusableStore(UserError, OSError):
    """The store cannot be read or written: a mistake when a command meets it, a fault of disk or network in a trial."""


class StoreFiles:
    """The files under one root. Every method raises `UnusableStore` if need be."""

    def __init__(self, root: str | Path, patience_seconds: float = 0.0) -> None:
        self.root = str(root)
        self.patience_seconds = patience_seconds  # a command says at once what is wrong; a trial may wait
        address = self.root if "://" in self.root else str(expanded(root, f"store {root}"))
        try:
            # Listings must not be cached: other processes publish while this one lives.
            self._files, path = fsspec.url_to_fs(address, use_listings_cache=False)
        except (ImportError, ValueError) as error:
            raise UserError(Problem(f"store {self.root}", f"cannot be used: {error}", advice=_ADVICE)) from error
        self._root = path.rstrip("/")
        self._access = access_to(f"store {self.root}", UnusableStore, _ADVICE)

    @property
    def is_folder(self) -> bool:
        """Tell whether the store is a folder, here or mounted."""
        return isinstance(self._files, LocalFileSystem)

    def lease_files(self) -> LeaseFiles | None:
        """Return where leases lie; None if the store is of a kind that cannot have any."""
        root = f"{self._root}/leases"
        if self.is_folder:
            return FolderLeases(root, self._access)
        return S3Leases(self._files, root, self._access) if "s3" in self._files.protocol else None

    def has_index(self, data_key: str) -> bool:
        """Return whether the index of a data set (`ubt.data.content`) is there."""
        with self._access("read"):
            return bool(self._files.exists(self._index(data_key)))

    def index(self, data_key: str) -> bytes | None:
        """Return the index of a data set; None if it was not kept."""
        return self._content(self._index(data_key))

    def keep_index(self, data_key: str, content: bytes) -> None:
        """Keep the index of a data set, for nodes that have other data under its paths."""
        self._write(self._index(data_key), content)

    def indexes(self) -> list[StoredFile]:
        """Return the files of all indexes of data sets."""
        with self._access("read"):
            try:
                found = self._files.find(f"{self._root}/data", maxdepth=1, detail=True)
            except FileNotFoundError:
                return []
            ours = [path for path in found if path.endswith(_INDEX)]
            return [file for path in ours if (file := self._stored(path, found[path]["size"]))]

    def check_writable(self) -> None:
        """Write and delete a small file."""
        note = uuid.uuid4().hex
        self.write_note(note)
        self.remove_note(note)

    def write_note(self, name: str) -> None:
        """Leave an empty file for others to find who say that they see the same store. One left behind is a stray."""
        self._write(self._note(name), b"")

    def has_note(self, name: str) -> bool:
        """Return whether someone left it. Not asked for before it is there: NFS remembers for a while what was not."""
        return self._content(self._note(name)) is not None

    def remove_note(self, name: str) -> None:
        """Take a note away, if it is there."""
        with self._access("written"), suppress(FileNotFoundError):
            self._files.rm_file(self._note(name))

    def patiently(self, call: Callable[[], Result]) -> Result:
        """Return what `call` returns, which uses leases in this store: tried again, too, while the store stumbles."""
        return self._patiently("used", call)

    def _patiently(self, what: str, call: Callable[[], Result]) -> Result:
        return patiently(call, self.patience_seconds, f"as the store {self.root} cannot be {what}")

    def _content(self, path: str) -> bytes | None:
        """Return a file's bytes, or None if there is no such file."""
        with self._access("read"):
            try:
                content: bytes = self._patiently("read", lambda: self._files.cat_file(path))
            except FileNotFoundError:
                return None
            except IsADirectoryError:
                return b""  # which is no content of any artifact's file
            return content

    def _write(self, path: str, content: bytes) -> None:
        """Write one file whole. Object stores do so by themselves; a folder needs a rename."""
        with self._access("written"):
            if self.is_folder:
                self._patiently("written", lambda: write_whole(Path(path), content, lasting=True))
            else:
                self._patiently("written", lambda: self._files.pipe_file(path, content))

    def _write_payload(self, folder: str, name: str, parts: Sequence[Part]) -> str:
        """Write one payload whole into a folder, and return its checksum, which it is called by."""
        with self._access("written"):
            return self._patiently("written", lambda: write_payload(Path(folder), name, parts))

    def _stored(self, path: str, size_bytes: int) -> StoredFile | None:
        """Return what is known of a file; None if it has gone meanwhile, as a name that is written to does."""
        with suppress(FileNotFoundError):
            return StoredFile(path, size_bytes, self._files.modified(path))
        return None

    def _move_aside(self, path: str) -> None:
        with self._access("written"), suppress(FileNotFoundError):  # another process met the same damage, and was first
            aside = f"{path}.damaged-{uuid.uuid4().hex[:8]}"
            self._patiently("written", lambda: self._files.mv(path, aside))

    def _index(self, data_key: str) -> str:
        return f"{self._root}/data/{data_key}{_INDEX}"

    def _note(self, name: str) -> str:
        return f"{self._root}/artifacts/.writable-{name}"
