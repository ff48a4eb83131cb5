"""The artifact store: work that was done, found by its key. A folder, NFS or S3, through fsspec.

An artifact is a small `meta.json` and payload files whose names carry their own checksum. The payloads are
written first and the meta last, so a reader sees a whole artifact or none, and several processes publishing
one key at once can only ever leave one of several whole ones. Nothing is pickled. Loads no torch.
"""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from glob import escape
from pathlib import Path

import fsspec
from fsspec.implementations.local import LocalFileSystem
from pydantic import Field, JsonValue, ValidationError

from ubt.config import Config
from ubt.errors import DamagedArtifact, Problem, UserError
from ubt.files import write_whole
from ubt.fingerprint import digest_bytes
from ubt.records import EpochRecord

META = "meta.json"

_ADVICE = "give another one with `store:` in the study, or $UBT_STORE"


class Payload(Config):
    """One file of an artifact."""

    file: str
    sha256: str
    size_bytes: int


class Meta(Config):
    """What an artifact is, where it came from, and what was measured while it was made."""

    stage: str
    key: str
    version: int
    seed: int | None
    settings: dict[str, JsonValue]
    inputs: dict[str, str]
    """Role → key of the artifact that filled it."""
    payloads: dict[str, Payload] = Field(default_factory=dict)
    base: str | None = None
    """`stage/key` of the model that this one is stored as a difference from."""
    base_sha256: str = ""
    """Checksum of that model's payload: a base computed anew to other bits (on a GPU, say) is another base."""
    facts: dict[str, JsonValue] = Field(default_factory=dict)
    """Small results that are no tensors."""
    metrics: dict[str, float] = Field(default_factory=dict)
    epochs: tuple[EpochRecord, ...] = ()
    seconds: float = 0.0
    own_seconds: float | None = None
    """Of those, the stage's own work (see `StageRecord`); none in artifacts from before it was told apart."""
    peak_memory_bytes: int = 0
    device: str = ""
    created_at: str = Field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    @property
    def size_bytes(self) -> int:
        """Return the size of all payloads."""
        return sum(payload.size_bytes for payload in self.payloads.values())


class ArtifactStore:
    """Artifacts under one root: `<root>/artifacts/<stage>/<key>/`.

    Raises:
        UserError: if the root is an address of a kind that fsspec does not know or lacks a package for.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = str(root)
        address = self.root if "://" in self.root else str(Path(root).expanduser())
        try:
            # Listings must not be cached: other processes publish while this one lives.
            self._files, path = fsspec.url_to_fs(address, use_listings_cache=False)
        except (ImportError, ValueError) as error:
            raise UserError(Problem(f"store {self.root}", f"cannot be used: {error}", advice=_ADVICE)) from error
        self._artifacts = f"{path.rstrip('/')}/artifacts"

    def has(self, stage: str, key: str) -> bool:
        """Tell whether the artifact is there, whole."""
        return bool(self._files.exists(self._path(stage, key, META)))

    def keys(self, stage: str) -> set[str]:
        """Return the keys of all published artifacts of a stage, with one listing."""
        found = self._files.glob(f"{escape(self._artifacts)}/{stage}/*/{META}")
        return {str(path).rsplit("/", 2)[1] for path in found}

    def meta(self, stage: str, key: str) -> Meta | None:
        """Return the artifact's description, or None if there is no such artifact.

        A description that cannot be read is set aside, so that the artifact is computed again.
        """
        path = self._path(stage, key, META)
        try:
            return Meta.model_validate_json(self._files.cat_file(path))
        except FileNotFoundError:
            return None
        except (ValidationError, UnicodeDecodeError):
            self._move_aside(path)
            return None

    def read(self, meta: Meta, name: str) -> bytes:
        """Return a payload's bytes.

        Raises:
            DamagedArtifact: if it is missing or its checksum differs; the artifact has then been set aside.
        """
        payload = meta.payloads[name]
        try:
            content: bytes = self._files.cat_file(self._path(meta.stage, meta.key, payload.file))
        except FileNotFoundError:
            content = b""
        if digest_bytes(content) != payload.sha256:
            self.set_aside(meta)
            raise DamagedArtifact(f"{meta.stage} {meta.key}: {payload.file} is damaged and was set aside")
        return content

    def publish(self, meta: Meta, payloads: Mapping[str, bytes]) -> Meta:
        """Write the payloads, then the meta that makes them an artifact; return the completed meta.

        Raises:
            OSError: if the disk is full or not writable; nothing is published then.
        """
        described = {}
        for name, content in payloads.items():
            digest = digest_bytes(content)
            file = f"{name}-{digest[:16]}.bin"
            self._write(self._path(meta.stage, meta.key, file), content)
            described[name] = Payload(file=file, sha256=digest, size_bytes=len(content))
        complete = meta.model_copy(update={"payloads": described})
        self._write(self._path(meta.stage, meta.key, META), complete.model_dump_json(indent=1).encode())
        return complete

    def metas(self) -> Iterator[Meta]:
        """Yield the description of every artifact, stage by stage."""
        for path in sorted(self._files.glob(f"{escape(self._artifacts)}/*/*/{META}")):
            stage, key = str(path).rsplit("/", 3)[1:3]
            if meta := self.meta(stage, key):
                yield meta

    def remove(self, meta: Meta) -> None:
        """Delete an artifact, if it is still there: first the meta, so that no reader meets half of it."""
        with suppress(FileNotFoundError):
            self._files.rm_file(self._path(meta.stage, meta.key, META))
        with suppress(FileNotFoundError):  # an object store has no folder left once the meta was all of it
            self._files.rm(self._path(meta.stage, meta.key), recursive=True)

    def set_aside(self, meta: Meta) -> None:
        """Take a damaged artifact out of use, keeping its files for whoever wants to know why."""
        self._move_aside(self._path(meta.stage, meta.key, META))

    def check_writable(self) -> None:
        """Write and delete a small file.

        Raises:
            UserError: if that does not work.
        """
        probe = f"{self._artifacts}/.writable-{uuid.uuid4().hex}"
        try:
            self._write(probe, b"")
            self._files.rm_file(probe)
        except faults_of_access() as error:
            raise UserError(Problem(f"store {self.root}", f"cannot be written: {error}", advice=_ADVICE)) from error

    def _write(self, path: str, content: bytes) -> None:
        """Write one file whole. Object stores do so by themselves; a folder needs a rename."""
        if not isinstance(self._files, LocalFileSystem):
            self._files.pipe_file(path, content)
            return
        write_whole(Path(path), content)

    def _move_aside(self, path: str) -> None:
        with suppress(FileNotFoundError):  # another process met the same damage and was quicker
            self._files.mv(path, f"{path}.damaged-{uuid.uuid4().hex[:8]}")

    def _path(self, stage: str, key: str, file: str = "") -> str:
        return f"{self._artifacts}/{stage}/{key}/{file}".rstrip("/")


def faults_of_access() -> tuple[type[Exception], ...]:
    """Return what a store that cannot be read or written raises; S3's client has errors (no credentials) of its own."""
    client = sys.modules.get("botocore.exceptions")
    return (OSError, ValueError, client.BotoCoreError) if client else (OSError, ValueError)


def default_store() -> str:
    """Return `$UBT_STORE`, or the user's cache folder; absolute, as workers run in folders of their own."""
    given = os.environ.get("UBT_STORE") or "~/.cache/ubt"
    return given if "://" in given else str(Path(given).expanduser().absolute())


def local_cache(store: str) -> Path:
    """Return the folder for decoded images: inside a local store, else in the user's cache folder."""
    return Path("~/.cache/ubt" if "://" in store else store).expanduser() / "images"
