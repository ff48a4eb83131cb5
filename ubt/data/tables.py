"""CSV files of images: rows with their numbers, and every mistake in them, gathered and reported together."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ubt.common.errors import Problem, UserError
from ubt.data.digests import in_threads

LISTED = 20
"""A data set with one mistake often has it in every row, and ten thousand lines are not read."""


def raise_if_any(problems: Sequence[Problem]) -> None:
    """Do nothing if all is well.

    Raises:
        UserError: with the first `LISTED` problems and the number of those that are not listed.
    """
    listed, more = list(problems[:LISTED]), len(problems) - LISTED
    if more > 0:
        listed.append(Problem(f"and {more} more", f"only the first {LISTED} problems are listed"))
    if listed:
        raise UserError(listed)


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
    image: Path
    text: str

    @property
    def where(self) -> str:
        """The row in words, for messages."""
        return f"{self.table}: row {self.number}"


def read_rows(path: Path, column: str, problems: list[Problem]) -> list[Row]:
    """Return the rows of a CSV with the columns `image` and `column`, leaving out blank lines.

    Image paths are relative to the CSV. What is wrong is added to `problems`: a file that cannot be read,
    a missing column, no rows, an empty cell, a row with too many or too few cells. Images are not looked at.
    """
    records = _records(path, problems)
    wanted = _columns(path, records[0], column, problems) if records else None
    if wanted is None:
        return []
    if not any(records[1:]):
        problems.append(Problem(str(path), "has a header but no rows"))
    rows = []
    for number, record in enumerate(records[1:], start=2):
        trouble = _trouble(record, len(records[0]), column, wanted)
        if trouble:
            problems.append(Problem(f"{path}: row {number}", trouble))
        elif record:
            image, text = (record[position].strip() for position in wanted)
            rows.append(Row(path, number, path.parent / image, text))
    return rows


def report_missing(rows: Sequence[Row], problems: list[Problem]) -> None:
    """Add a problem for every row whose image is missing, is no regular file, or may not be read."""
    images = list(dict.fromkeys(row.image for row in rows))
    readable = dict(zip(images, in_threads(_readable, images), strict=True))
    problems.extend(Problem(row.where, f"no such image: {row.image}") for row in rows if not readable[row.image])


def _records(path: Path, problems: list[Problem]) -> list[list[str]]:
    """Return all lines of a CSV, the header first; none if it cannot be read."""
    records: list[list[str]] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            # Strict, because a quote that is never closed would otherwise swallow the rest of the file.
            records.extend(csv.reader(stream, strict=True))
    except FileNotFoundError:
        problems.append(Problem(str(path), "there is no such file", advice="say where it is: --set victim.data.…=PATH"))
        return []
    except (OSError, UnicodeDecodeError) as error:
        problems.append(Problem(str(path), f"cannot be read: {error}", advice="it must be a CSV in UTF-8"))
        return []
    except csv.Error as error:
        problems.append(Problem(f"{path}: row {len(records) + 1}", f"is not valid CSV: {error}"))
        return []
    if not records:
        problems.append(Problem(str(path), "is empty"))
    return records


def _columns(path: Path, header: Sequence[str], column: str, problems: list[Problem]) -> tuple[int, int] | None:
    """Return where the images and the other column are."""
    names = [name.strip() for name in header]
    missing = [name for name in ("image", column) if name not in names]
    found = ", ".join(names) or "nothing"
    problems.extend(Problem(str(path), f"has no column `{name}`; found: {found}") for name in missing)
    return None if missing else (names.index("image"), names.index(column))


def _trouble(record: Sequence[str], width: int, column: str, wanted: tuple[int, int]) -> str:
    """Return what is wrong with a record, or nothing. A blank line is no record and no mistake."""
    if not record:
        return ""
    if len(record) != width:
        return f"has {len(record)} cells where the header has {width}; quote text that holds commas"
    empty = [name for name, at in zip(("image", column), wanted, strict=True) if not record[at].strip()]
    return f"{' and '.join(empty)} must not be empty" if empty else ""


def _readable(path: Path) -> bool:
    try:
        return path.is_file() and os.access(path, os.R_OK)
    except (OSError, ValueError):  # a name that is too long or holds a NUL, a folder that may not be searched
        return False
