"""What a trigger does to images, as numbers: pixels laid over, mixed in, or read from elsewhere. Loads no torch.

An attack whose trigger is the same on every image of a size says it in this form (`Attack.change`). It is worked out
once, and applied here, or by `ubt.methods.stamping` on a device: bit for bit the same on a CPU, for every step is one
operation in float32, in the same order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ubt.common.progress import beat

Images = NDArray[np.uint8]
"""`[N, H, W, 3]`, uint8, 0–255."""
Floats = NDArray[np.float32]

WHITE = np.float32(255)
_BLOCK = 256


@dataclass(frozen=True)
class Pasted:
    """Pixels that replace a part of the image."""

    top: int
    left: int
    pixels: Images
    """`[h, w, 3]`."""

    def on(self, images: Images) -> None:
        """Change `images[N, H, W, 3]` in place."""
        height, width = self.pixels.shape[:2]
        images[:, self.top : self.top + height, self.left : self.left + width] = self.pixels


@dataclass(frozen=True)
class Mixed:
    """`x' = keep·x + added` over the whole image or a square of it, with grey levels clipped to what there is."""

    keep: Floats
    """Broadcast to the part that is changed, `[h, w, 3]`."""
    added: Floats
    top: int = 0
    left: int = 0
    side_px: int | None = None
    """Side of the square; None for the whole image."""
    white: bool = False
    """Computed in floats of which 1 is white, clipped and cut off, as published code does; else in 0–255."""
    rounded: bool = True
    """Grey levels are rounded; else their fractions are cut off."""

    def on(self, images: Images) -> None:
        """Change `images[N, H, W, 3]` in place."""
        part = images
        if self.side_px is not None:
            part = images[:, self.top : self.top + self.side_px, self.left : self.left + self.side_px]
        part[:] = in_blocks(part, self._unit if self.white else self._levels, self.rounded and not self.white)

    def _levels(self, block: Floats) -> Floats:
        mixed: Floats = self.keep * block + self.added
        return mixed

    def _unit(self, block: Floats) -> Floats:
        mixed: Floats = np.clip(self.keep * (block / WHITE) + self.added, 0, np.float32(1)) * WHITE
        return mixed


@dataclass(frozen=True)
class Moved:
    """Every pixel is read from elsewhere, bilinearly."""

    top: NDArray[np.int64]
    """`[H, W]`: the upper of the two rows that a pixel is read between."""
    left: NDArray[np.int64]
    down: Floats
    """`[H, W, 1]`: how far below it, in 0–1."""
    right: Floats
    rounded: bool = True

    @classmethod
    def to(cls, rows: NDArray[np.float64], columns: NDArray[np.float64], rounded: bool = True) -> Moved:
        """Return the change that reads pixels at `rows[H, W]` and `columns[H, W]`."""
        height_px, width_px = rows.shape
        top, left = np.minimum(rows.astype(int), height_px - 2), np.minimum(columns.astype(int), width_px - 2)
        down, right = ((rows - top)[..., None].astype(np.float32), (columns - left)[..., None].astype(np.float32))
        return cls(top, left, down, right, rounded)

    def on(self, images: Images) -> None:
        """Change `images[N, H, W, 3]` in place."""
        images[:] = in_blocks(images, self._sampled, self.rounded)

    def _sampled(self, block: Floats) -> Floats:
        upper = (1 - self.right) * block[:, self.top, self.left] + self.right * block[:, self.top, self.left + 1]
        lower = (1 - self.right) * block[:, self.top + 1, self.left] + (
            self.right * block[:, self.top + 1, self.left + 1]
        )
        mixed: Floats = (1 - self.down) * upper + self.down * lower
        return mixed


Step = Pasted | Mixed | Moved
Change = tuple[Step, ...]
"""Steps, one after the other."""


def changed_by(change: Change, images: Images) -> Images:
    """Return changed copies of `images[N, H, W, 3]`."""
    changed = np.array(images)
    for step in change:
        step.on(changed)
    return changed


def mixed(keep: Floats | float, added: Floats, white: bool = False, rounded: bool = True) -> Change:
    """Return `x' = keep·x + added` over the whole image."""
    return (Mixed(np.asarray(keep, dtype=np.float32), added, white=white, rounded=rounded),)


def blended(pattern: Floats, opacity: float) -> Change:
    """Return `(1 − opacity)·x + opacity·pattern`, rounded; `pattern[H, W, 3]` in 0–255."""
    return mixed(1.0 - opacity, np.float32(opacity) * pattern)


def mix(images: Images, pattern: Floats, opacity: float) -> Images:
    """Return `(1 − opacity)·images + opacity·pattern`, rounded to uint8; `pattern[H, W, 3]` in 0–255."""
    return changed_by(blended(pattern, opacity), images)


def in_blocks(images: Images, change: Callable[[Floats], Floats], rounded: bool = True) -> Images:
    """Return `change` of `images[N, H, W, 3]`, rounded to uint8, or cut off to it.

    It is handed blocks `[B, H, W, 3]` float32, because a float copy of all images takes four times their memory.
    """
    changed = np.empty(images.shape, dtype=np.uint8)
    for start in range(0, len(images), _BLOCK):
        beat()
        changed[start : start + _BLOCK] = to_uint8(change(images[start : start + _BLOCK].astype(np.float32)), rounded)
    return changed


def to_uint8(images: Floats, rounded: bool = True) -> Images:
    """Round float images in 0–255 to uint8, or cut off their fractions; clipped either way."""
    return np.clip(np.rint(images) if rounded else images, 0, 255).astype(np.uint8)
