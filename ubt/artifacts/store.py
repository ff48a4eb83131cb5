"""The artifact store: work that was done, found by its key. A folder, NFS or S3, through fsspec.

An artifact is a small `meta.json` and payload files whose names carry their own checksum. The payloads are
written first and the manifest last, each synced, so a reader sees a whole artifact or none, and several processes
publishing one key at once can only ever leave one of several whole ones. Nothing is pickled. Loads no torch.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from glob import escape
from pathlib import Path
from typing import TypeVar

import fsspec
from fsspec.implementations.local import LocalFileSystem
from pydantic import ValidationError

from ubt.artifacts.lease_files import FolderLeases, LeaseFiles, S3Leases
from ubt.artifacts.manifest import MANIFEST_FILE, ArtifactManifest, Payload
from ubt.artifacts.patience import access_to, patiently
from ubt.artifacts.payloads import Content, Part, StoredFile, is_ours, payload_file, write_payload
from ubt.common.atomic_files import write_whole
from ubt.common.errors import DamagedArtifact, Problem, UserError
from ubt.common.hashing import checksum
from ubt.common.paths import cache_root, expanded

Result = TypeVar("Result")

_INDEX = ".jsonl.gz"
_ADVICE = "give another one with `store:` in the study, or $UBT_STORE"


class UnusableStore(UserError, OSError):
    """The store cannot be read or written: a mistake when a command meets it, a fault of disk or network in a trial."""


class ArtifactStore:
    """Artifacts under one root: `<root>/artifacts/<stage>/<key>/`. Every method raises `UnusableStore` if need be.

    Raises:
        UserError: if the root is an address of a kind that fsspec does not know or lacks a package for.
    """

    _tree = "artifacts"

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
        self._artifacts = f"{self._root}/{self._tree}"
        self._access = access_to(f"store {self.root}", UnusableStore, _ADVICE)

    def lease_files(self) -> LeaseFiles | None:
        """Return where leases lie; None if the store is of a kind that cannot have any."""
        root = f"{self._root}/leases"
        if isinstance(self._files, LocalFileSystem):
            return FolderLeases(root, self._access)
        return S3Leases(self._files, root, self._access) if "s3" in self._files.protocol else None

    def has(self, stage: str, key: str) -> bool:
        """Return whether the artifact is there, whole."""
        with self._access("read"):
            return self._patiently("read", lambda: bool(self._files.exists(self._path(stage, key, MANIFEST_FILE))))

    def keys(self, stage: str) -> set[str]:
        """Return the keys of all published artifacts of a stage, with one listing."""
        with self._access("read"):
            found = self._patiently("read", lambda: list(self._descriptions(stage)))
            return {path.rsplit("/", 2)[1] for path in found}

    def manifest(self, stage: str, key: str) -> ArtifactManifest | None:
        """Return the artifact's description, or None if there is no such artifact.

        A description that cannot be understood is set aside, so that the artifact is computed again.
        """
        path = self._path(stage, key, MANIFEST_FILE)
        content = self._content(path)
        if content is None:
            return None
        with suppress(ValidationError, UnicodeDecodeError):
            found = ArtifactManifest.model_validate_json(content)
            if (found.stage, found.key) == (stage, key):
                return found
        self._move_aside(path)
        return None

    def manifest_now(self, stage: str, key: str) -> ArtifactManifest | None:
        """Return the same, also if it came into a folder on NFS just now: a client remembers what was not there."""
        if isinstance(self._files, LocalFileSystem):
            for folder in (f"{self._artifacts}/{stage}", self._path(stage, key)):
                with suppress(OSError):
                    os.scandir(folder).close()  # opening a folder makes the client ask
        return self.manifest(stage, key)

    def read(self, manifest: ArtifactManifest, name: str) -> bytes:
        """Return a payload's bytes.

        Raises:
            DamagedArtifact: if it is missing or its checksum differs; the artifact has then been set aside.
        """
        payload = manifest.payloads[name]
        content = self._content(self._path(manifest.stage, manifest.key, payload.file)) or b""
        if not payload.fits(content):
            self.set_aside(manifest)
            raise DamagedArtifact(f"{manifest.stage} {manifest.key}: {payload.file} is damaged and was set aside")
        return content

    def publish(self, manifest: ArtifactManifest, payloads: Mapping[str, Content]) -> ArtifactManifest:
        """Write the payloads, then the manifest that makes them an artifact; return the completed manifest.

        If the disk is full or not writable, nothing is published.
        """
        described = {}
        for name, content in payloads.items():
            parts = (content,) if isinstance(content, bytes) else tuple(content)
            digest = self._write_payload(self._path(manifest.stage, manifest.key), name, parts)
            described[name] = Payload(file=payload_file(name, digest), xxh3=digest, size_bytes=sum(map(len, parts)))
        complete = manifest.model_copy(update={"payloads": described})
        path = self._path(manifest.stage, manifest.key, MANIFEST_FILE)
        self._write(path, complete.model_dump_json(indent=1).encode())
        return complete

    def manifests(self) -> Iterator[ArtifactManifest]:
        """Yield the description of every artifact, stage by stage."""
        with self._access("read"):
            found = sorted(self._descriptions("*"))
        for path in found:
            stage, key = path.rsplit("/", 3)[1:3]
            if manifest := self.manifest(stage, key):
                yield manifest

    def strays(self, manifests: Iterable[ArtifactManifest]) -> list[StoredFile]:
        """Return the files that belong to none of the artifacts: of writers that were killed, set aside, or replaced.

        Those that are being written just now are among them; only their age tells them apart.
        """
        owned = {self._path(manifest.stage, manifest.key, file) for manifest in manifests for file in manifest.files}
        with self._access("read"):
            found = self._files.find(self._artifacts, detail=True)
            stray = [path for path in found if path not in owned and is_ours(path.removeprefix(f"{self._artifacts}/"))]
            return [file for path in stray if (file := self._stored(path, found[path]["size"]))]

    def remove(self, manifest: ArtifactManifest) -> None:
        """Delete an artifact, if it is still there: first the manifest, so that no reader meets half of it."""
        with self._access("written"):
            with suppress(FileNotFoundError):
                self._files.rm_file(self._path(manifest.stage, manifest.key, MANIFEST_FILE))
            with suppress(FileNotFoundError):  # an object store has no folder left once the manifest was all of it
                self._files.rm(self._path(manifest.stage, manifest.key), recursive=True)

    def remove_files(self, replaced: ArtifactManifest, kept: ArtifactManifest) -> None:
        """Delete the payloads of an artifact that another one has taken the place of."""
        with self._access("written"):
            for file in set(replaced.files) - set(kept.files):
                with suppress(FileNotFoundError):
                    self._files.rm_file(self._path(replaced.stage, replaced.key, file))

    def remove_stray(self, stray: StoredFile) -> None:
        """Delete a file that belongs to no artifact, if it is still there, and its folder if nothing else is in it."""
        with self._access("written"), suppress(FileNotFoundError):
            self._files.rm_file(stray.path)
        if isinstance(self._files, LocalFileSystem):
            with suppress(OSError):
                Path(stray.path).parent.rmdir()

    def set_aside(self, manifest: ArtifactManifest) -> None:
        """Take a damaged artifact out of use, keeping its files for a look at what happened."""
        self._move_aside(self._path(manifest.stage, manifest.key, MANIFEST_FILE))

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
            if isinstance(self._files, LocalFileSystem):
                self._patiently("written", lambda: write_whole(Path(path), content, lasting=True))
            else:
                self._patiently("written", lambda: self._files.pipe_file(path, content))

    def _write_payload(self, folder: str, name: str, parts: Sequence[Part]) -> str:
        """Write one payload whole, and return its checksum, which it is called by."""
        if not isinstance(self._files, LocalFileSystem):
            digest = checksum(*parts)
            self._write(f"{folder}/{payload_file(name, digest)}", b"".join(parts))
            return digest

        with self._access("written"):
            return self._patiently("written", lambda: write_payload(Path(folder), name, parts))

    def _descriptions(self, stage: str) -> Iterable[str]:
        """Return the paths of the descriptions of all artifacts of a stage."""
        pattern = f"{stage}/*/{MANIFEST_FILE}"
        if isinstance(self._files, LocalFileSystem):  # which would list every artifact's folder, and `ubt plan` wait
            return map(str, Path(self._artifacts).glob(pattern))
        return map(str, self._files.glob(f"{escape(self._artifacts)}/{pattern}"))

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
        return f"{self._artifacts}/.writable-{name}"

    def _path(self, stage: str, key: str, file: str = "") -> str:
        return f"{self._artifacts}/{stage}/{key}/{file}".rstrip("/")


class UnfinishedStore(ArtifactStore):
    """The unfinished artifacts under one root (`ubt.artifacts.unfinished`): `<root>/unfinished/<stage>/<slot>/`."""

    _tree = "unfinished"


def default_store() -> str:
    """Return `$UBT_STORE`, or the cache folder; absolute, as workers run in folders of their own."""
    given = os.environ.get("UBT_STORE") or str(cache_root())
    return given if "://" in given else str(expanded(given, "$UBT_STORE").absolute())


def local_cache(store: str) -> Path:
    """Return the folder for decoded images: inside a local store, else in the cache folder of this machine."""
    return (cache_root() if "://" in store else expanded(store, f"store {store}")) / "images"
