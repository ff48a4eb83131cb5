"""The artifact store: work that was done, found by its key. A folder, NFS or S3, through fsspec.

An artifact is a small `meta.json` and payload files whose names carry their own checksum. The payloads are
written first and the manifest last, each synced, so a reader sees a whole artifact or none, and several processes
publishing one key at once can only ever leave one of several whole ones. Nothing is pickled. Loads no torch.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from glob import escape
from pathlib import Path

from pydantic import ValidationError

from ubt.artifacts.manifest import MANIFEST_FILE, ArtifactManifest, Payload
from ubt.artifacts.payloads import Content, StoredFile, is_ours, parts_of, payload_file
from ubt.artifacts.store_files import StoreFiles, UnusableStore
from ubt.common.errors import DamagedArtifact
from ubt.common.hashing import checksum
from ubt.common.paths import cache_root, expanded

__all__ = ["ArtifactStore", "UnfinishedStore", "UnusableStore", "default_store", "local_cache"]


class ArtifactStore(StoreFiles):
    """Artifacts under one root: `<root>/artifacts/<stage>/<key>/`. Every method raises `UnusableStore` if need be.

    Raises:
        UserError: if the root is an address of a kind that fsspec does not know or lacks a package for.
    """

    _tree = "artifacts"

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
        if self.is_folder:
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
        if not self.is_folder:
            complete = self.described(manifest, payloads)
            self.put(complete, payloads)
            return complete
        found = {}
        for name, content in payloads.items():
            parts = parts_of(content)
            digest = self._write_payload(self._path(manifest.stage, manifest.key), name, parts)
            found[name] = Payload(file=payload_file(name, digest), xxh3=digest, size_bytes=sum(map(len, parts)))
        complete = manifest.model_copy(update={"payloads": found})
        self._describe(complete)
        return complete

    def described(self, manifest: ArtifactManifest, payloads: Mapping[str, Content]) -> ArtifactManifest:
        """Return the completed manifest of an artifact that is yet to be written."""
        found = {}
        for name, content in payloads.items():
            digest = checksum(*parts_of(content))
            size_bytes = sum(map(len, parts_of(content)))
            found[name] = Payload(file=payload_file(name, digest), xxh3=digest, size_bytes=size_bytes)
        return manifest.model_copy(update={"payloads": found})

    def put(self, complete: ArtifactManifest, payloads: Mapping[str, Content]) -> None:
        """Write what a completed manifest describes, and the manifest last.

        Raises:
            DamagedArtifact: if a payload has changed since it was described; nothing is published then.
        """
        for name, content in payloads.items():
            written = b"".join(parts_of(content))
            if not complete.payloads[name].fits(written):
                raise DamagedArtifact(f"{complete.stage} {complete.key}: {name} was changed before it was published")
            self._write(self._path(complete.stage, complete.key, complete.payloads[name].file), written)
        self._describe(complete)

    def _describe(self, complete: ArtifactManifest) -> None:
        path = self._path(complete.stage, complete.key, MANIFEST_FILE)
        self._write(path, complete.model_dump_json(indent=1).encode())

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

    def note_used(self, manifest: ArtifactManifest) -> None:
        """Note that an artifact is used now; only a folder can, and a failure is of no matter."""
        if self.is_folder:
            with suppress(OSError):
                os.utime(self._path(manifest.stage, manifest.key, MANIFEST_FILE))

    def used_at(self, manifest: ArtifactManifest) -> datetime:
        """Return when an artifact was used last; in a store that is no folder, when it was made."""
        if self.is_folder:
            with suppress(OSError):
                path = self._path(manifest.stage, manifest.key, MANIFEST_FILE)
                return datetime.fromtimestamp(Path(path).stat().st_mtime, UTC)
        return manifest.made

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
        if self.is_folder:
            with suppress(OSError):
                Path(stray.path).parent.rmdir()

    def set_aside(self, manifest: ArtifactManifest) -> None:
        """Take a damaged artifact out of use, keeping its files for a look at what happened."""
        self._move_aside(self._path(manifest.stage, manifest.key, MANIFEST_FILE))

    def _descriptions(self, stage: str) -> Iterable[str]:
        """Return the paths of the descriptions of all artifacts of a stage."""
        pattern = f"{stage}/*/{MANIFEST_FILE}"
        if self.is_folder:  # which would list every artifact's folder, and `ubt plan` wait
            return map(str, Path(self._artifacts).glob(pattern))
        return map(str, self._files.glob(f"{escape(self._artifacts)}/{pattern}"))

    @property
    def _artifacts(self) -> str:
        return f"{self._root}/{self._tree}"

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
