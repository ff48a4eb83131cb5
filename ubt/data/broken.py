"""Broken images among many (missing, truncated, none at all): found, left out within a limit, listed in a file."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import __version__ as pillow_version

from ubt.common.atomic_files import write_whole
from ubt.common.errors import Problem, UserError
from ubt.common.hashing import digest_bytes
from ubt.common.paths import cache_root
from ubt.common.progress import progress
from ubt.data.decode import DECODER_VERSION, DEEP_VERSION
from ubt.data.digests import FileFacts, in_threads
from ubt.data.images import FEW, Decoders, Encoded
from ubt.data.tables import Row, say_once, with_advice

CHECKED_BY = f"decoder {DECODER_VERSION}.{DEEP_VERSION}, Pillow {pillow_version}"
"""What decides whether an image is broken, beside its content."""


@dataclass(frozen=True)
class Broken:
    """One image that cannot be used."""

    where: str
    reason: str


def report_missing(rows: Sequence[Row], problems: list[Problem]) -> None:
    """Add a problem for every row whose image is missing, is no regular file, or may not be read."""
    reasons = zip(rows, missing_reasons(rows), strict=True)
    missing = [Problem(row.where, reason) for row, reason in reasons if reason]
    problems.extend(with_advice(missing))


def missing_reasons(rows: Sequence[Row]) -> list[str]:
    """Return for each row why its image is no file that can be opened; nothing if it is one."""
    images = list(dict.fromkeys(row.file for row in rows))
    readable = dict(zip(images, in_threads(_readable, images), strict=True))
    return ["" if readable[row.file] else f"no such image: {row.image}" for row in rows]


def without_broken(
    rows: Sequence[Row], label: str, workers: int | None, max_broken: float, problems: list[Problem]
) -> list[Row]:
    """Return the rows whose images can be decoded, having decoded each once, unless that is remembered.

    If more than the fraction `max_broken` is broken, or all is, each is added to `problems`; else they are listed in a
    file, which is logged.
    """
    reasons = dict(zip(rows, missing_reasons(rows), strict=True))
    images = list(dict.fromkeys(row.file for row in rows if not reasons[row]))

    def check() -> list[str]:
        what = f"checking {label} images"
        with Decoders(workers) as decoders:
            encoded = (Encoded(image, Path(image)) for image in images)
            reasons = decoders.broken_reasons(encoded, what, few=len(images) < FEW)
            return list(progress(reasons, len(images), what))

    found = FileFacts(images, f"{label} images").texts(f"broken ({CHECKED_BY})", check, len(images))
    undecodable = dict(zip(images, found, strict=True))
    for row, reason in reasons.items():
        if not reason and undecodable[row.file]:
            reasons[row] = f"{row.image} cannot be decoded: {undecodable[row.file]}"
    broken = [Broken(row.where, reason) for row, reason in reasons.items() if reason]
    if broken:
        leave_out(broken, len(rows), str(rows[0].table), max_broken, problems)
    return [row for row in rows if not reasons[row]]


def leave_out(
    broken: Sequence[Broken], total: int, source: str, max_broken: float, problems: list[Problem], what: str = "images"
) -> None:
    """List the broken ones of `total` images or pairs in a file and log where; or add too many to `problems`."""
    share = f"{len(broken):,} of {total:,} {what} are broken"
    if len(broken) > max_broken * total or len(broken) == total:
        advice = f"`max_broken` allows the fraction {max_broken:g}: repair some, or allow more"
        problems.append(Problem(source, share, advice=advice))
        problems.extend(Problem(each.where, each.reason) for each in broken)
        return
    stream = io.StringIO(newline="")
    csv.writer(stream).writerows([("where", "reason"), *((each.where, each.reason) for each in broken)])
    content = stream.getvalue().encode(errors="backslashreplace")
    path = cache_root() / "skipped" / f"skipped-{digest_bytes(content)[:12]}.csv"
    try:
        listed = f"they are listed in {path if path.is_file() else write_whole(path, content)}"
    except (OSError, UserError) as error:
        listed = f"they could not be listed in a file: {error}"
    say_once(f"{source}: {share} and skipped; {listed}")


def _readable(path: str) -> bool:
    try:
        return os.path.isfile(path) and os.access(path, os.R_OK)  # noqa: PTH113 — of half a million
    except (OSError, ValueError):  # a name that is too long or holds a NUL, a folder that may not be searched
        return False
