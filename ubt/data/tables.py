"""Tables of images (CSV, TSV and their like): which columns are meant, the rows, and every mistake in them.

What separates cells and how text is quoted is read off the file; a header in its own words is understood too.
"""

from __future__ import annotations

import csv
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice
from pathlib import Path

from ubt.common.errors import Problem, UserError

_log = logging.getLogger(__name__)


def raise_if_any(problems: Sequence[Problem]) -> None:
    """Do nothing if all is well.

    Raises:
        UserError: with all the problems.
    """
    if problems:
        raise UserError(problems)


@contextmanager
def gather(problems: list[Problem]) -> Iterator[None]:
    """Move the problems of a `UserError` into `problems`, so that what comes next is checked as well."""
    try:
        yield
    except UserError as error:
        problems.extend(error.problems)


@dataclass(frozen=True, slots=True)
class Row:
    """One image and what is said about it: a caption or a label."""

    table: Path
    number: int
    """As a spreadsheet counts: the header is row 1."""
    file: str
    """Path of the image: a `Path` of each of half a million would take hundreds of megabytes."""
    text: str
    unit: str = "row"
    """What is counted; nothing if the image's own path says where it is."""

    @property
    def image(self) -> Path:
        """The path of the image."""
        return Path(self.file)

    @property
    def where(self) -> str:
        """The row in words, for messages."""
        return f"{self.table}: {self.unit} {self.number}" if self.unit else str(self.image)


COLUMNS: Mapping[str, Sequence[str]] = {
    "image": (
        "filepath",
        "path",
        "imagepath",
        "filename",
        "file",
        "imagefile",
        "imagename",
        "img",
        "jpg",
        "png",
        "webp",
    ),
    "caption": ("title", "text", "txt", "sentence", "comment", "description", "alttext"),
    "label": ("class", "classname", "category", "target", "synset", "wnid"),
}
"""What a column may be called beside its own name, in the order of preference: as open_clip, LAION, COCO, CleanCLIP
and others call them. Case, spaces, `_` and `-` do not matter."""

_SEPARATORS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "vertical bars"}
_BYTE_ORDER_MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}

_SHOWN = 40
"""Columns that are named in a message, and letters of each: what is no table may be one line of megabytes."""
_OTHER_KINDS = {".json": "coco", ".parquet": "parquet", ".tar": "webdataset"}
"""What reads pairs that are no table, by what such files end in."""

Record = Sequence[str]


@dataclass(frozen=True)
class Columns:
    """Which columns of a table are meant."""

    names: Sequence[str]
    """Of all columns."""
    wanted: tuple[int, int]
    """Positions of the image and of what is said about it."""


def read_rows(
    path: Path,
    column: str,
    problems: list[Problem],
    chosen: Mapping[str, str | None] | None = None,
    folder: Path | None = None,
) -> list[Row]:
    """Return the rows of a table with the columns `image` and `column` (`caption` or `label`), without blank lines.

    Image paths are relative to `folder`, by default the table's own. What is wrong is added to `problems`: a file
    that cannot be read, a missing column, no rows, an empty cell, a row with too many or too few cells. Images are
    not looked at.

    Args:
        path: separated by commas, tabs, semicolons or vertical bars; in UTF-8, or in UTF-16 with its mark.
        column: `caption` or `label`.
        problems: added to.
        chosen: names of columns that are to be taken for `image` and `column`.
        folder: where relative paths start.
    """
    kind = _OTHER_KINDS.get(path.suffix.lower())
    if kind is not None:
        advice = (
            f"`kind: {kind}` reads pairs from it" if column == "caption" else "labels are a CSV, or a folder of folders"
        )
        problems.append(Problem(str(path), "is no CSV", advice=advice))
        return []
    wanted = {role: (chosen or {}).get(role) for role in ("image", column)}
    found = _open_table(path, wanted, problems)
    if found is None:
        return []
    separator, columns = found
    records = _records(path, separator, problems)
    if records and not any(records[1:]):
        problems.append(Problem(str(path), "has a header but no rows"))
    rows, start = [], str(folder or path.parent)
    for number, record in enumerate(records[1:], start=2):
        trouble = _trouble(record, separator, columns)
        if trouble:
            problems.append(Problem(f"{path}: row {number}", trouble))
        elif record:
            image, text = (record[position].strip() for position in columns.wanted)
            rows.append(Row(path, number, os.path.join(start, image), text))  # noqa: PTH118 — see `Row.file`
    return rows


def with_advice(broken: Sequence[Problem]) -> list[Problem]:
    """Return problems of broken images, the first with what may be done about all of them."""
    advice = "repair it, or leave out what is broken: `on_broken: skip`"
    return [replace(broken[0], advice=advice), *broken[1:]] if broken else []


def find_columns(
    where: str, names: Sequence[str], chosen: Mapping[str, str | None], problems: list[Problem]
) -> Columns | None:
    """Return which of the columns `names` are meant by two roles, as `image` and `caption`.

    Each is chosen by name, or None: then the role's own name is taken, or else another that it may have (`COLUMNS`);
    if several are there, what is taken is logged. Adds to `problems` what is missing, and what is there twice.
    """
    taken = []
    for role, name in chosen.items():
        candidates = _candidates(names, role, name)
        if not candidates:
            problems.append(_missing(where, names, role, name))
            continue
        best, *others = candidates
        if names.count(names[best]) > 1:
            problems.append(
                Problem(where, f"has {names.count(names[best])} columns `{names[best]}`; leave one, or rename")
            )
        elif others:
            rest = ", ".join(f"`{names[other]}`" for other in others)
            say_once(
                f"{where}: column `{names[best]}` is taken for the {role}, not {rest}; `{role}_column` says otherwise"
            )
        taken.append(best)
    return Columns(names, (taken[0], taken[1])) if len(taken) == len(chosen) else None


def _candidates(names: Sequence[str], role: str, chosen: str | None) -> list[int]:
    """Return the columns that may be meant, the likeliest first."""
    if chosen is not None:
        return [at for at, name in enumerate(names) if name == chosen][:1]
    ranks = {name: rank for rank, name in enumerate((role, *COLUMNS[role]))}
    meant = [at for at, name in enumerate(names) if _plain(name) in ranks]
    return sorted(meant, key=lambda at: (names[at] != role, ranks[_plain(names[at])]))


def _missing(where: str, names: Sequence[str], role: str, chosen: str | None) -> Problem:
    shown = [name if len(name) <= _SHOWN else f"{name[: _SHOWN - 1]}…" for name in names[:_SHOWN]]
    found = ", ".join([*shown, *(["…"] if len(names) > _SHOWN else [])]) or "nothing"
    message = f"has no column `{chosen or role}`; found: {found}"
    if role == "image" and chosen is None and any(_plain(name) == "url" for name in names):
        return Problem(
            where, message, advice="images at addresses have to be fetched first; img2dataset makes shards of them"
        )
    others = "" if chosen else f"call it {role}, {' or '.join(COLUMNS[role][:2])}, or "
    return Problem(where, message, advice=f"{others}say with `{role}_column` which one it is")


@cache
def say_once(text: str) -> None:
    """Log what was decided, once a process."""
    _log.warning(text)


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]", "", name).casefold()


def _open_table(path: Path, wanted: Mapping[str, str | None], problems: list[Problem]) -> tuple[str, Columns] | None:
    """Return what separates the cells, and the columns: commas, unless only with another one those wanted are there."""
    readable, unreadable = [], []
    for separator in _SEPARATORS:
        troubles: list[Problem] = []
        head = _parsed(path, separator, csv.QUOTE_MINIMAL, troubles, count=1)
        if head is None:
            unreadable.append(troubles)
            continue
        names = [name.strip() for name in head[0]] if head else []
        found: list[Problem] = [] if head else [Problem(str(path), "is empty")]
        columns = find_columns(str(path), names, wanted, found) if head else None
        if columns is not None:
            problems.extend(found)
            return None if found else (separator, columns)
        readable.append((-len(names), found))
    # What is there is best seen with most columns.
    problems.extend(min(readable, key=lambda each: each[0])[1] if readable else unreadable[0])
    return None


def _records(path: Path, separator: str, problems: list[Problem]) -> list[Record]:
    """Return all records of a table, the header first; none if it is damaged."""
    troubles: list[Problem] = []
    records = _parsed(path, separator, csv.QUOTE_MINIMAL, troubles)
    if separator == "\t":
        # Captions with quotes in them lie in such files as they are: then every line is a row of the header's width.
        plain = _parsed(path, separator, csv.QUOTE_NONE, []) or []
        whole = all(len(record) in {0, len(plain[0])} for record in plain)
        if plain and whole and (records is None or len(records) != len(plain)):
            return plain
    problems.extend(troubles)
    return records or []


def _parsed(
    path: Path, separator: str, quoting: int, problems: list[Problem], count: int | None = None
) -> list[Record] | None:
    """Return the first `count` records, or all; None if they cannot be read."""
    records: list[Record] = []
    try:
        with path.open("rb") as stream:
            encoding = _BYTE_ORDER_MARKS.get(stream.read(2), "utf-8-sig")
        with path.open(encoding=encoding, newline="") as text:
            # Strict, because a quote that is never closed would otherwise swallow the rest of the file.
            records.extend(islice(csv.reader(text, delimiter=separator, quoting=quoting, strict=True), count))  # type: ignore[arg-type]
    except FileNotFoundError:
        problems.append(Problem(str(path), "there is no such file", advice="say where it is: --set victim.data.…=PATH"))
        return None
    except (OSError, UnicodeError) as error:
        problems.append(Problem(str(path), f"cannot be read: {error}", advice="it must be a CSV in UTF-8"))
        return None
    except csv.Error as error:
        problems.append(Problem(f"{path}: row {len(records) + 1}", f"is not valid CSV: {error}"))
        return None
    return records


def _trouble(record: Record, separator: str, columns: Columns) -> str:
    """Return what is wrong with a record, or nothing. A blank line is no record and no mistake."""
    if not record:
        return ""
    width = len(columns.names)
    if len(record) != width:
        held = _SEPARATORS[separator]
        return f"has {len(record)} cells where the header has {width}; quote text that holds {held}"
    empty = [columns.names[at] for at in columns.wanted if not record[at].strip()]
    return f"{' and '.join(empty)} must not be empty" if empty else ""
