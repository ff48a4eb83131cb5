"""Where two copies of a data set, or of a file, differ first, in words."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import zip_longest

from ubt.data.content.index import Entry


@dataclass(frozen=True)
class Difference:
    """The first row in which what a node has differs from what the study has."""

    where: str
    """The row in words: `/data/pairs.csv: row 17`."""
    file: str
    """Path of the file that it names; empty if it names none."""
    study: str
    """What the study has there."""
    here: str
    """What this node has."""

    def __str__(self) -> str:
        file = f", {self.file}" if self.file and self.file != self.where else ""
        return f"{self.where}{file}: the study has {self.study}, this node has {self.here}"


def first_difference(study: Iterable[Entry], here: Iterable[Entry]) -> Difference | None:
    """Return the first entry that differs; None if all are the same. What follows it is not looked at."""
    for planned, found in zip_longest(study, here):
        if planned is None:
            return Difference(found.where, found.file, "nothing more", _content(found))
        if found is None:
            return Difference(planned.where, planned.file, _content(planned), "nothing more")
        if not planned.same(found):
            return difference(planned, found)
    return None


def difference(study: Entry, here: Entry) -> Difference:
    """Return how two entries differ: the first of place, presence, size, content and text."""
    if study.where != here.where:  # a list is longer or shorter
        return Difference(study.where, study.file, _content(study), f"{here.where} in its place")
    if here.file and here.size_bytes is None:
        return Difference(study.where, here.file, _content(study), "none that can be read")
    if study.size_bytes != here.size_bytes:
        return Difference(study.where, here.file, _bytes(study), _bytes(here))
    if study.sha256 != here.sha256:
        return Difference(study.where, here.file, _digest(study), _digest(here))
    return Difference(study.where, here.file, repr(study.text), repr(here.text))


def _content(entry: Entry) -> str:
    parts = [f"{_bytes(entry)}, {_digest(entry)}"] if entry.size_bytes is not None else []
    return " and ".join([*parts, *([repr(entry.text)] if entry.text else [])]) or "none that can be read"


def _bytes(entry: Entry) -> str:
    return "none that can be read" if entry.size_bytes is None else f"{entry.size_bytes:,} bytes"


def _digest(entry: Entry) -> str:
    return f"SHA-256 {entry.sha256}…"
