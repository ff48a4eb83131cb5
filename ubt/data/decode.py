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
DEEP_VERSION = 2
"""The same for deep images alone (see `is_deep`); version 1 cut off what is above 255."""

DRAFT_VERSION = 1
"""The same for images that are decoded as drafts."""

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
"""Not all that Pillow knows: it hands EPS, for one, to Ghostscript, which runs what the file says."""

Pixels = NDArray[np.uint8]
DAMAGE = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error)
"""What Pillow raises for files that are no whole images."""
_LEAST_SHRUNK = 2
"""How many times the size of a model a draft has at least: what is lost is then mostly lost by resizing, too."""
_LARGEST_PX = 1024
"""No CLIP model takes larger images; what is too large once it is resized to this, is broken."""
UNCLEAR_HEADS = (b"II", b"MM", b"P")
"""What TIFF and PPM begin with: how deep such an image is, its first bytes alone do not tell."""
HEAD_BYTES = 26
"""Those of any other image do."""
_PNG = b"\x89PNG\r\n\x1a\n"
_BITS_PER_SAMPLE, _PHOTOMETRIC = 258, 262
_ADVICE = "no file says what range they have, so save it with 8 or 16 bits"


def decode_images(contents: Sequence[Path | bytes], size_px: int, draft: bool = False) -> list[Pixels | str]:
    """Return for each file or its bytes the pixels `[size_px, size_px, 3]`, or why there are none."""
    return [_pixels_or_reason(content, size_px, draft) for content in contents]


def decode_image(content: Path | bytes, size_px: int, draft: bool = False) -> Pixels:
    """Return an image as `[size_px, size_px, 3]` uint8: RGB, shorter side resized (bicubic), centre cropped.

    These are the pixels of open_clip's `image_transform(size_px, is_train=False)` before normalisation, but for
    grey images of 16 bits, which that makes white: they are scaled as Pillow scales RGB of 16 bits, by dropping the
    lower 8. Transparency and EXIF's orientation are left out of account, as open_clip does.

    A `draft` of a JPEG file is decoded at a half, a quarter or an eighth of its size, at twice `size_px` or more: each
    block of 8×8 pixels from its lower frequencies alone, which are the mean of pixels where bicubic resizing weighs
    them otherwise.

    Raises:
        ValueError: if the image is too large to be decoded safely, of no known format, or of pixels that have no
            known range (floating-point, signed, 32 bits).
        OSError: if it cannot be read or is truncated; damaged headers raise the rest of `DAMAGE`.
    """
    image, size = _decoded(content, size_px, draft)
    return np.asarray(_square(image, size, size_px))


def broken_reasons(contents: Sequence[Path | bytes]) -> list[str]:
    """Return for each file or its bytes why it cannot be decoded; nothing if it can, at any size of a model."""
    return [_broken_reason(content) for content in contents]


def is_deep(content: Path | bytes) -> bool:
    """Return whether an image holds more than 8 bits of grey, or floating-point numbers. Only its head is read."""
    try:
        if isinstance(content, Path):
            with content.open("rb") as stream:
                head = stream.read(HEAD_BYTES)
        else:
            head = content[:HEAD_BYTES]
        if head.startswith(_PNG):
            return head[24:26] == b"\x10\x00"  # 16 bits, grey
        if not head.startswith(UNCLEAR_HEADS):
            return False
        with Image.open(content if isinstance(content, Path) else BytesIO(content), formats=FORMATS) as image:
            return image.mode[0] in "IF"
    except (*DAMAGE, Image.DecompressionBombError):
        return False  # why it cannot be read is said when it is decoded


def _decoded(content: Path | bytes, size_px: int, draft: bool = False) -> tuple[Image.Image, tuple[int, int]]:
    """Return an image in RGB, and the size that it has in its file: it has it too, unless it is a draft."""
    try:
        with Image.open(content if isinstance(content, Path) else BytesIO(content), formats=FORMATS) as image:
            size = image.size
            _refuse_bomb(*size, size_px)
            if draft:  # does nothing to other formats
                image.draft("RGB", (_LEAST_SHRUNK * size_px, _LEAST_SHRUNK * size_px))
            image.load()  # a truncated file shows here, not on opening
            return _rgb(image), size
    except UnidentifiedImageError as error:
        raise ValueError(f"it is none of {', '.join(FORMATS)}") from error
    except Image.DecompressionBombError as error:
        raise ValueError(str(error)) from error


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError(f"its pixels are floating-point numbers; {_ADVICE}")
    if image.mode == "I" and image.format != "PPM":  # whose reader scales to 16 bits
        raise ValueError(f"its pixels are signed numbers, or have 32 bits; {_ADVICE}")
    if not image.mode.startswith("I"):
        return image.convert("RGB")
    tags = getattr(image, "tag_v2", {})  # of TIFF
    bits = tags.get(_BITS_PER_SAMPLE, (16,))[0]
    grey = (np.asarray(image) >> (bits - 8)).astype(np.uint8)
    white_is_zero = tags.get(_PHOTOMETRIC) == 0  # which Pillow heeds for 8 bits alone
    return Image.fromarray(255 - grey if white_is_zero else grey).convert("RGB")


def _pixels_or_reason(content: Path | bytes, size_px: int, draft: bool) -> Pixels | str:
    try:
        return decode_image(content, size_px, draft)
    except DAMAGE as error:
        return str(error) or type(error).__name__


def _broken_reason(content: Path | bytes) -> str:
    try:
        _decoded(content, _LARGEST_PX)
    except DAMAGE as error:
        return str(error) or type(error).__name__
    return ""


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


def _square(image: Image.Image, size: tuple[int, int], size_px: int) -> Image.Image:
    width_px, height_px = _resized(*size, size_px)
    resized = image.resize((width_px, height_px), Image.Resampling.BICUBIC)
    left, top = round((width_px - size_px) / 2), round((height_px - size_px) / 2)
    return resized.crop((left, top, left + size_px, top + size_px))
