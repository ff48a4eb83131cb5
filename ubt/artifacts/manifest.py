"""What an artifact says of itself: what it is, where it came from, and which files it consists of. Loads no torch."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AliasChoices, Field, JsonValue, model_validator

from ubt.common.hashing import checksum, digest_bytes
from ubt.config import Config
from ubt.trials.record import EpochRecord


def utc_now() -> str:
    """Return the time: UTC, ISO 8601, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


MANIFEST_FILE = "meta.json"
"""Its name in the store, the same as in version 0.1, whose artifacts are found by it."""


_PART = "[A-Za-z0-9_][A-Za-z0-9_.-]*"
Name = Annotated[str, Field(pattern=f"^{_PART}$")]
"""A part of a path in the store: what others have written there must lead to nothing outside of it."""


class Setup(Config):
    """What the speed of a stage depends on beside the work that it is: seconds of one setup say nothing of another."""

    model: str
    """Architecture of the model."""
    image_size_px: int
    precision: str
    hardware: str
    """What computes: the name of the GPU, or of the CPU."""
    threads: int
    """CPU threads of a trial; 0 on a GPU, where they hardly matter."""
    gpus: float = 0.0
    """GPUs of a trial: less than one is shared with others."""

    def __str__(self) -> str:
        share = f"{self.gpus:g} of a GPU" if 0 < self.gpus < 1 else f"{self.threads} threads" if self.threads else ""
        parts = (self.model, f"{self.image_size_px} px", self.precision, self.hardware, share)
        return ", ".join(part.replace("1 threads", "1 thread") for part in parts if part)


class Payload(Config):
    """One file of an artifact."""

    file: Name
    sha256: str = ""
    """In artifacts of before there was the next one."""
    xxh3: str = ""
    """XXH3-128 of its bytes (`ubt.common.hashing.checksum`)."""
    size_bytes: int

    @model_validator(mode="after")
    def _is_checked(self) -> Payload:
        if not (self.sha256 or self.xxh3):
            raise ValueError("has no checksum")
        return self

    @property
    def checksum(self) -> str:
        """Return what it is checked by: equal ones are of equal bytes."""
        return f"xxh3:{self.xxh3}" if self.xxh3 else self.sha256

    def fits(self, content: bytes) -> bool:
        """Return whether these are the bytes that were written."""
        return checksum(content) == self.xxh3 if self.xxh3 else digest_bytes(content) == self.sha256


class ArtifactManifest(Config):
    """What an artifact is, where it came from, and what was measured while it was made."""

    stage: Name
    key: Name
    version: int
    seed: int | None
    settings: dict[str, JsonValue]
    inputs: dict[str, Name]
    """Role → key of the artifact that filled it."""
    payloads: dict[str, Payload] = Field(default_factory=dict)
    base: Annotated[str, Field(pattern=f"^{_PART}/{_PART}$")] | None = None
    """`stage/key` of the model that this one is stored as a difference from."""
    base_checksum: str = Field(default="", validation_alias=AliasChoices("base_checksum", "base_sha256"))
    """Checksum of that model's payload: a base computed anew to other bits (on a GPU, say) is another base."""
    facts: dict[str, JsonValue] = Field(default_factory=dict)
    """Small results that are no tensors."""
    diagnostics: dict[str, float] = Field(default_factory=dict, validation_alias=AliasChoices("diagnostics", "metrics"))
    """What is known of the result by those who know the poison; called `metrics` by version 0.1."""
    epochs: tuple[EpochRecord, ...] = ()
    seconds: float = 0.0
    own_seconds: float | None = None
    """Of those, the stage's own work (see `StageRecord`); none in artifacts from before it was distinguished."""
    peak_memory_bytes: int = 0
    device: str = ""
    setup: Setup | None = None
    """What it was computed on; none in artifacts of before it was written down."""
    work: dict[str, float] = Field(default_factory=dict)
    """How much work it was, kind by kind (`ubt.engine.work`), counted beforehand; empty if that is not known."""
    node: str = ""
    """Host that computed it; empty in artifacts of before it was written down, as the next two."""
    computed_by: str = ""
    """The trial that computed it, `STUDY/TRIAL`."""
    started_at: str = ""
    """When computing it began: UTC time, ISO 8601."""
    created_at: str = Field(default_factory=utc_now)

    @property
    def size_bytes(self) -> int:
        """Return the size of all payloads."""
        return sum(payload.size_bytes for payload in self.payloads.values())

    @property
    def made(self) -> datetime:
        """Return when it was made."""
        made = datetime.fromisoformat(self.created_at)
        return made if made.tzinfo else made.replace(tzinfo=UTC)

    @property
    def files(self) -> list[str]:
        """Return the names of the files that the artifact consists of."""
        return [MANIFEST_FILE, *(payload.file for payload in self.payloads.values())]
