"""What the lists of a data set say, in the form in which it is remembered, so that no other process parses them.

Half a million rows take seconds and a gigabyte to parse and to check; what is read back takes a second and what the
captions themselves take.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Protocol

from pydantic import JsonValue

from ubt.data.addresses.clouds import seen
from ubt.data.content.remembered import remembered
from ubt.data.digests import Stamp


@dataclass(frozen=True)
class Known:
    """A data set of image files as its lists have it, with a digest in the place of each split's images."""

    key: str
    """Of its content."""
    captions: Sequence[str] = ()
    """Of the N training pairs."""
    files: Sequence[str] = ()
    """What their images are called in the list."""
    pretrain: Sequence[str] | None = None
    """Captions of the clean pairs, if there are any."""
    images: Mapping[str, str] = field(default_factory=dict)
    """Split → digest of its images, in their order."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """Split → how many images."""
    val_labels: Sequence[int] = ()
    test_labels: Sequence[int] = ()
    classes: Sequence[str] = ()
    templates: Sequence[str] = ()
    skipped: Mapping[str, int] = field(default_factory=dict)
    """List → how many of its images were left out because they are broken."""

    def as_text(self) -> str:
        """Return it as one text."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def of(cls, text: str) -> Known:
        """Return what a text says that `as_text` has made."""
        return cls(**json.loads(text))


class Source(Hashable, Protocol):
    """A data set in files, as configured; equal ones have equal hashes."""

    @property
    def may_be_kept(self) -> bool:
        """Return whether what the lists say holds as long as no file changes that they name."""

    def as_json(self) -> dict[str, JsonValue]:
        """Return the configuration."""

    def read_lists(self) -> Known:
        """Return what the lists say, parsing them."""

    def compute_key(self) -> str:
        """Return the key of the content."""


Stamps = tuple[Stamp | None, ...]


@lru_cache(maxsize=32)
def key_of(source: Source, stamps: Stamps) -> str:
    """Return the key of a data set's content, while the files that say what it consists of have these stamps."""
    known = remembered_lists(source, stamps)
    return known.key if known else source.compute_key()


@lru_cache(maxsize=2)
def remembered_lists(source: Source, stamps: Stamps) -> Known | None:
    """Return what the lists with these stamps say, parsed only if a file has changed; None if that may not be kept."""
    if not source.may_be_kept or not all(stamps):
        return None
    lists: list[JsonValue] = [list(each) for each in stamps if each]
    return Known.of(remembered(source.as_json(), lists, lambda: source.read_lists().as_text()))


def forget_lists() -> None:
    """Look at all files again when a key or a list is asked for next, as a new process does."""
    seen.cache_clear()
    key_of.cache_clear()
    remembered_lists.cache_clear()
