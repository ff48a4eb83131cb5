"""Where the poisoned pairs that a list or a pattern names are among the data's. Loads no torch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ubt.common.errors import Problem, UserError
from ubt.data.base import Images, Pairs
from ubt.data.tables import raise_if_any
from ubt.trials.poison import GivenList, GivenPoison, ListedPair, read_poison_list


@dataclass(frozen=True)
class Located:
    """Rows of given pairs, sorted: `indices[P]` are poisoned, `decoys[Q]` have changed captions only."""

    indices: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    decoys: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))


def located(poison: GivenPoison, pairs: Pairs) -> Located | None:
    """Return where the poison is among given pairs; None if that is not known.

    Raises:
        UserError: if the manifest cannot be read or is of other pairs, or the pattern tells nothing apart.
    """
    if poison.manifest is not None:
        listed = read_poison_list(poison.manifest)
        if pairs.skipped and (pairs.files is None or listed.decoys or any(not pair.image for pair in listed.poisoned)):
            message = f"says rows, and {pairs.skipped} broken pairs of the data are left out: its rows count otherwise"
            advice = "say what the images are called, or repair the data (`on_broken: fail`)"
            raise UserError(Problem(listed.source, message, advice=advice))
        return locate(listed, pairs.captions, pairs.files, pairs.skipped)
    return None if poison.image_pattern is None else matching(poison.image_pattern, pairs.files)


def read_trigger(path: Path) -> Images:
    """Return the picture of a learnt trigger, `[S, S, 3]` uint8.

    Raises:
        UserError: if it cannot be read.
    """
    try:
        with Image.open(path) as picture:
            return np.array(picture.convert("RGB"))
    except OSError as error:
        raise UserError(Problem(str(path), f"is no picture of a trigger: {error}")) from error


def locate(
    listed: GivenList, captions: Sequence[str], images: Sequence[str] | None = None, skipped: int = 0
) -> Located:
    """Return where the listed pairs are among N `captions`; `images` are their N files, None if these have no names.

    As many listed images may be missing as broken ones were `skipped`.

    Raises:
        UserError: with every listed pair that is not there, or has another caption.
    """
    problems: list[Problem] = []
    missing: list[Problem] = []
    files = None if images is None else _Files(images)
    if listed.pairs not in {None, len(captions)} and files is None:
        message = f"lists some of {listed.pairs} pairs, and the data has {len(captions)}"
        problems.append(Problem(listed.source, message, advice="give the list of these pairs"))
    rows: set[int] = set()
    for pair in listed.poisoned:
        found = _rows_of(pair, files, len(captions), problems, missing)
        said = (
            found if pair.caption is None else [row for row in found if captions[row].strip() == pair.caption.strip()]
        )
        if found and not said:
            message = f"the caption differs from that of the data's pair {found[0]}: {captions[found[0]]!r}"
            problems.append(Problem(pair.where, message, pair.caption))
        rows.update([pair.index] if pair.index in said else said)
    problems += missing if len(missing) > skipped else []
    decoys = [row for row in listed.decoys if not 0 <= row < len(captions)]
    problems += [Problem(f"{listed.source}: decoys", _out_of(len(captions)), row) for row in decoys]
    raise_if_any(problems)
    return Located(_sorted(_some(rows, len(captions), listed.source)), _sorted(listed.decoys))


def matching(pattern: str, images: Sequence[str] | None) -> Located:
    """Return which of N pairs have an image file that is called so; `images` are their files, None without names.

    Raises:
        UserError: if none is, all are, or the files have no names.
    """
    where = "victim.poison.image_pattern"
    if images is None:
        raise UserError(
            Problem(where, "the data's images are no files with names", pattern, "give a `manifest` of rows")
        )
    rows = [row for row, image in enumerate(images) if fnmatch(image, pattern)]
    if not rows:
        raise UserError(Problem(where, f"no image is called so; the first is {images[0]}", pattern))
    return Located(_sorted(_some(rows, len(images), where)))


class _Files:
    """Image files by name, however much of their path is said."""

    def __init__(self, images: Iterable[str]) -> None:
        self._rows: dict[str, list[tuple[tuple[str, ...], int]]] = defaultdict(list)
        for row, image in enumerate(images):
            parts = PurePosixPath(image).parts
            self._rows[parts[-1]].append((parts, row))

    def rows(self, image: str) -> tuple[list[int], int]:
        """Return the rows with that image, and how many files it may be."""
        wanted = PurePosixPath(image).parts
        found: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for parts, row in self._rows.get(wanted[-1] if wanted else "", ()):
            known = min(len(parts), len(wanted))
            if parts[-known:] == wanted[-known:]:
                found[parts].append(row)
        exact = found.get(wanted)
        return exact or [row for rows in found.values() for row in rows], 1 if exact else len(found)


def _rows_of(
    pair: ListedPair, files: _Files | None, count: int, problems: list[Problem], missing: list[Problem]
) -> list[int]:
    """Return the rows that a listed pair may be: by its image where images have names, else by its number."""
    if files is not None and pair.image is not None:
        rows, several = files.rows(pair.image)
        if several > 1 and pair.index not in rows:
            problems.append(Problem(pair.where, f"{several} images are called so; say more of the path", pair.image))
            return []
        if not rows:
            missing.append(Problem(pair.where, "is the image of no pair of the data", pair.image))
        return rows
    if pair.index is None:
        advice = "list rows: a column `index`, from 0"
        problems.append(Problem(pair.where, "the data's images are no files with names", pair.image, advice))
        return []
    if pair.index >= count:
        problems.append(Problem(pair.where, _out_of(count), pair.index))
        return []
    return [pair.index]


def _some(rows: Iterable[int], count: int, where: str) -> Iterable[int]:
    """Return the rows; `UserError` if they are all there are: without clean pairs there is nothing to tell apart."""
    found = list(rows)
    if len(found) == count:
        advice = "name the poisoned ones only, or add a column `is_backdoor` that says which are"
        raise UserError(Problem(where, f"says that all {count} pairs are poisoned", advice=advice))
    return found


def _out_of(count: int) -> str:
    return f"is no row of the data; its {count} pairs are 0 to {count - 1}"


def _sorted(rows: Iterable[int]) -> NDArray[np.int64]:
    return np.array(sorted(rows), dtype=np.int64)
