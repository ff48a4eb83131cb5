"""Images decoded once: a memory-mapped uint8 file that all workers of a machine share."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ubt.data.base import Images


def cached_images(path: Path, count: int, size_px: int, fill: Callable[[Images], None]) -> Images:
    """Return `images[count, size_px, size_px, 3]` (uint8, read-only, memory-mapped) from `path`.

    A missing file is made by `fill`, which writes into the array it is given. The file appears under its
    name only when it is whole, so several processes may do this at once and a killed one leaves no harm.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
        try:
            shape = (count, size_px, size_px, 3)
            images = np.lib.format.open_memmap(unfinished, mode="w+", dtype=np.uint8, shape=shape)
            fill(images)
            images.flush()
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
    mapped: Images = np.load(path, mmap_mode="r", allow_pickle=False)
    return mapped
