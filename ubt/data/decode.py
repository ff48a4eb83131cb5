"""One image: from its file to a square of pixels, as open_clip prepares images for evaluation.

Decoding processes import this module, so it imports little: no torch, no pydantic.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

DECODER_VERSION = 1
"""Raised whenever equal files would give other pixels, so that no cache outlives its decoder."""

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
"""Not all that Pillow knows: it hands EPS, for one, to Ghostscript, which runs what the file says."""

Pixels = NDArray[np.uint8]
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error)


def decode_images(contents: Sequence[Path | bytes], size_px: int) -> list[Pixels | str]:
    """Return for each file or its bytes the pixels `[size_px, size_px, 3]`, or why there are none."""
    return [_pixels_or_reason(content, size_px) for content in contents]


def decode_image(content: Path | bytes, size_px: int) -> Pixels:
    """Return an image as `[size_px, size_px, 3]` uint8: RGB, shorter side resized (bicubic), centre cropped.

    These are the pixels of open_clip's `image_transform(size_px, is_train=False)` before normalisation.

    Raises:
        ValueError: if the image is too large to be decoded safely, or of no known format.
        OSError: if it cannot be read or is truncated; damaged headers raise the rest of `_DAMAGE`.
    """
    try:
        with Image.open(content if isinstance(content, Path) else BytesIO(content), formats=FORMATS) as image:
            _refuse_bomb(*image.size, size_px)
            image.load()  # a truncated file shows here, not on opening
            return np.asarray(_square(image.convert("RGB"), size_px))
    except UnidentifiedImageError as error:
        raise ValueError(f"it is none of {', '.join(FORMATS)}") from error
    except Image.DecompressionBombError as error:
        raise ValueError(str(error)) from error


def _pixels_or_reason(content: Path | bytes, size_px: int) -> Pixels | str:
    try:
        return decode_image(content, size_px)
    except _DAMAGE as error:
        return str(error) or type(error).__name__


def _refuse_bomb(width_px: int, height_px: int, size_px: int) -> None:
    """Refuse images that are huge, or get huge when resized as a line of 1×60000 pixels (3 kB) does."""
    limit = Image.MAX_IMAGE_PIXELS
    resized_width_px, resized_height_px = _resized(width_px, height_px, size_px)
    if limit and max(width_px * height_px, resized_width_px * resized_height_px) > limit:
        at_size = f" (resized: {resized_width_px}×{resized_height_px})"
        raise ValueError(f"{width_px}×{height_px} pixels{at_size} exceed Pillow's limit of {limit}")


def _resized(width_px: int, height_px: int, size_px: int) -> tuple[int, int]:
    """Return the size with the shorter side `size_px`, rounding as torchvision's `Resize` does."""
    if width_px <= height_px:
        return size_px, int(size_px * height_px / width_px)
    return int(size_px * width_px / height_px), size_px


def _square(image: Image.Image, size_px: int) -> Image.Image:
    width_px, height_px = _resized(*image.size, size_px)
    resized = image.resize((width_px, height_px), Image.Resampling.BICUBIC)
    left, top = round((width_px - size_px) / 2), round((height_px - size_px) / 2)
    return resized.crop((left, top, left + size_px, top + size_px))
