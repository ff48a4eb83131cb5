"""Images decoded once: a memory-mapped uint8 file that all workers of a machine share."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ubt.data.base import Images
from ubt.files import made_once, reserve

KEPT = re.compile(r"\.?(images|scenes|captions)-.+\.(npy|json)(\..+)?")
"""Names of the files that data sets keep in their cache, whole or unfinished: it may be a folder with others in it."""


def cached_images(path: Path, count: int, size_px: int, fill: Callable[[Images], None]) -> Images:
    """Return `images[count, size_px, size_px, 3]` (uint8, read-only, memory-mapped) from `path`.

    A missing file is made by `fill`, which writes into the array it is given: in one process, while others that
    want the same file wait. It appears under its name only when it is whole, so a killed one leaves no harm.

    Raises:
        OSError: if the disk lacks the room, before anything is decoded; or if it cannot be written.
    """

    def decode(unfinished: Path) -> None:
        shape = (count, size_px, size_px, 3)
        images = np.lib.format.open_memmap(unfinished, mode="w+", dtype=np.uint8, shape=shape)
        reserve(unfinished)
        fill(images)
        images.flush()

    made_once(path, decode)
    mapped: Images = np.load(path, mmap_mode="r", allow_pickle=False)
    return mapped
