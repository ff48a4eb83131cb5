"""Folders of images, one for each class, as ImageNet's are: called as the classes are, or by WordNet's ids."""

from __future__ import annotations

import os
from pathlib import Path

from ubt.common.errors import Problem
from ubt.data.tables import Row

SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm")
)
"""What files of images end in, in small letters; others beside them are left out, and so is what is hidden."""


def class_folders(folder: Path) -> list[Path]:
    """Return the folders in `folder` that are not hidden, in the order of their names.

    Raises:
        OSError: if it cannot be read.
    """
    with os.scandir(folder) as entries:
        return [
            folder / name for name in sorted(entry.name for entry in entries if entry.is_dir() and _seen(entry.name))
        ]


def read_folders(folder: Path, problems: list[Problem]) -> list[Row]:
    """Return a row for every image in the folders of `folder`, in the order of their names, labelled by the folder.

    Adds to `problems` what cannot be read, folders without images, and images that lie in no class's folder.
    """
    try:
        found = {each: _images(each) for each in class_folders(folder)}
        loose = _images(folder)
    except OSError as error:
        problems.append(Problem(str(folder), f"cannot be read: {error}"))
        return []
    if loose or not found:
        message = f"holds {len(loose):,} images outside of folders" if loose else "holds no folders"
        advice = "put each image into a folder that is called like its class; or list them in a CSV: image,label"
        problems.append(Problem(str(folder), message, advice=advice))
    empty = [each for each, images in found.items() if not images]
    problems.extend(Problem(str(each), "is the folder of a class and holds no images") for each in empty)
    images = [(each.name, image) for each, within in found.items() for image in within]
    return [Row(folder, number, str(image), name, unit="") for number, (name, image) in enumerate(images, start=1)]


def _images(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if _seen(entry.name) and entry.is_file())
    return [folder / name for name in names if os.path.splitext(name)[1].lower() in SUFFIXES]  # noqa: PTH122 — of 50,000


def _seen(name: str) -> bool:
    return not name.startswith((".", "__MACOSX"))
