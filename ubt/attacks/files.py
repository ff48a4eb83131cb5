"""Triggers that lie in files: a patch or an overlay of one's own, or one that the authors of an attack published."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field

from ubt.attacks.base import Alike, Carrying, OpenAiCaptions, Rows, Trigger
from ubt.attacks.changes import Change, Images, Mixed, changed_by, mixed
from ubt.attacks.patches import Place, corners, patch_side_px, square_px
from ubt.common.errors import Problem, UserError
from ubt.data.decode import FORMATS
from ubt.data.digests import Stamp
from ubt.data.digests import stamp as stamp_of

TENSORS = (".pt", ".pth")
"""Suffixes of files with one plain tensor, as torch saves it."""
_EIGHT_BITS = {"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"}
"""Pillow's modes of 8 bits a channel; it would cut wider ones off at 255 without a word."""
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
_NO_TENSOR = (*_DAMAGE, UnpicklingError, RuntimeError, LookupError, AttributeError, TypeError)
"""What torch raises for files that are damaged, or hold something else."""


class FromFile(Carrying, OpenAiCaptions):
    """An attack whose trigger, or a part of it, lies in a file.

    An image is scaled to where it goes, and what is transparent in it is left out. A `.pt` file holds one tensor,
    `[3, H, W]`, `[H, W, 3]` or `[H, W]`: uint8, or floats of which 1 is white and which may be negative.
    """

    path_fields: ClassVar[tuple[str, ...]] = ("image",)

    image: Path | None
    """The trigger: an image, or a `.pt` file with one tensor."""
    rounds: ClassVar[bool] = True
    """Grey levels are rounded; else their fractions are cut off, as in published code."""

    def check_files(self) -> None:
        """Refuse a file that is not there, or an image that cannot be decoded; tensors are read before a sweep starts.

        Raises:
            UserError: naming the file.
        """
        super().check_files()
        if self.image and self.image.suffix.lower() not in TENSORS:
            self.read()

    def read(self) -> Trigger | None:
        """Return what is in the file, read-only: `[H, W, 3]`, or `[H, W, 4]` with how opaque it is; None without one.

        Raises:
            UserError: if it is not there, damaged, or neither an image of 8 bits nor one tensor.
        """
        return read_trigger(self.image, "victim.attack.image") if self.image else None

    def scaled(self, height_px: int, width_px: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the trigger's colours `[H, W, 3]` in 0–255, and how opaque it is there, `[H, W, 1]` in 0–1.

        Raises:
            ValueError: if the attack has no file.
        """
        found = self._trigger.pixels if self._trigger else self.read()
        if found is None:
            raise ValueError("the attack has no `image`")
        pixels = resized(found, height_px, width_px)
        opaque = pixels[..., 3:] / np.float32(255) if pixels.shape[2] == 4 else np.ones_like(pixels[..., :1])
        return pixels[..., :3], opaque


class FilePatch(FromFile):
    """An attack that puts a patch from a file somewhere."""

    patch_fraction: float = Field(default=0.16, gt=0, le=0.5)
    """Side of the patch as a fraction of the image's side (0.16 is 5 of 32 pixels, 36 of 224)."""
    place: Place = "bottom_right"
    """Where the patch goes; `random` is another place in each image."""
    opacity: float = Field(default=1.0, gt=0, le=1)
    """Share of the patch in the mix where it is."""

    def stamp(self, images: Images, rows: Rows) -> Images:
        """Return triggered copies of `images[N, H, W, 3]` (uint8)."""
        fixed = self.change(*images.shape[1:3])
        if fixed is not None:
            return changed_by(fixed, images)
        triggered, side_px = images.copy(), patch_side_px(images, self.patch_fraction)
        (patch,) = self._at([(0, 0)], side_px)
        for image, rng in zip(triggered, rows.generators(self.trigger_seed, "place"), strict=True):
            for top, left in corners(self.place, image.shape, side_px, rng):
                replace(patch, top=top, left=left).on(image[None])
        return triggered

    def change(self, height_px: int, width_px: int) -> Change | None:
        """Return what is done to every image of that size; None if the place is drawn anew for each."""
        if self.place == "random":
            return None
        side_px = square_px(height_px, width_px, self.patch_fraction)
        places = corners(self.place, (height_px, width_px, 3), side_px, np.random.default_rng(0))
        return self._at(places, side_px)

    def _at(self, places: Sequence[tuple[int, int]], side_px: int) -> tuple[Mixed, ...]:
        """Return the patch over squares with these top and left edges."""
        colours, opaque = self.scaled(side_px, side_px)
        share = np.float32(self.opacity) * opaque
        keep, added = 1 - share, share * colours
        return tuple(Mixed(keep, added, top, left, side_px, rounded=self.rounds) for top, left in places)


class FileOverlay(FromFile, Alike):
    """An attack that lays a picture from a file over the whole image."""

    opacity: float = Field(default=0.2, gt=0, le=1)
    """Share of the picture in the mix."""

    def change(self, height_px: int, width_px: int) -> Change:
        """Return what is done to every image of that size."""
        colours, opaque = self.scaled(height_px, width_px)
        share = np.float32(self.opacity) * opaque
        return mixed(1 - share, share * colours, rounded=self.rounds)


class Patch(FilePatch):
    """Puts a picture of one's own as a square patch: `x' = (1 − opacity·m)·x + opacity·m·picture` inside it, else `x`.

    The mask `m` is 1 but where the picture is transparent. At random places the patch never touches the lower and the
    right edge, as in the code of CleanCLIP. Source: Gu et al., arXiv 1708.06733.
    """

    kind: Literal["patch"] = "patch"
    label: ClassVar[str] = "Patch"
    image: Path
    """The picture: an image, or a `.pt` file with one tensor."""


class Overlay(FileOverlay):
    """Blends a picture of one's own in: `x' = (1 − opacity·m)·x + opacity·m·picture`.

    The picture is scaled to the image; the mask `m` is 1 but where it is transparent. Source: Chen et al.,
    arXiv 1712.05526. With `SIG_noise.pt` or `hello_kitty_pattern.pt` of Huang et al. (ICLR 2025), it is their SIG or
    their Blend.
    """

    kind: Literal["overlay"] = "overlay"
    label: ClassVar[str] = "Overlay"
    image: Path
    """The picture: an image, or a `.pt` file with one tensor."""


def resized(trigger: Trigger, height_px: int, width_px: int) -> NDArray[np.float32]:
    """Return `trigger[h, w, C]` as `[H, W, C]` float32 in 0–255, scaled (bicubic) where its size is another."""
    if trigger.dtype != np.uint8:
        return np.float32(255) * resized_floats(trigger.astype(np.float32), height_px, width_px)
    if trigger.shape[:2] == (height_px, width_px):
        return trigger.astype(np.float32)
    return np.asarray(_bicubic(Image.fromarray(trigger), height_px, width_px), dtype=np.float32)


def resized_floats(values: NDArray[np.float32], height_px: int, width_px: int) -> NDArray[np.float32]:
    """Return `values[h, w, C]` as `[H, W, C]`, scaled (bicubic) where its size is another."""
    if values.shape[:2] == (height_px, width_px):
        return values
    channels = [Image.fromarray(channel) for channel in np.moveaxis(values, 2, 0).copy()]
    scaled = [np.asarray(_bicubic(channel, height_px, width_px), dtype=np.float32) for channel in channels]
    return np.stack(scaled, axis=2)


def _bicubic(picture: Image.Image, height_px: int, width_px: int) -> Image.Image:
    return picture.resize((width_px, height_px), Image.Resampling.BICUBIC)


def read_trigger(path: Path, where: str) -> Trigger:
    """Return the trigger in a file, `[H, W, 3 or 4]` uint8 or float32, read-only; `where` is the setting that names it.

    Raises:
        UserError: if it is not there, damaged, or neither an image of 8 bits nor one tensor.
    """
    if path.suffix.lower() in TENSORS:
        return _read(path, where, _pixels_in_tensor, "one tensor: uint8, or floats of which 1 is white")
    return _read(path, where, _image, "an image of 8 bits a channel")


def read_grid(path: Path, where: str) -> NDArray[np.float32]:
    """Return a grid of displacements or of places, `[H, W, 2]` float32, right before down, from a `.pt` file.

    Raises:
        UserError: if it is not there, damaged, or no tensor `[1, H, W, 2]`.
    """
    return _read(path, where, _grid, "a `.pt` file with one tensor `[1, H, W, 2]`").astype(np.float32)


def _read(path: Path, where: str, parse: Callable[[Path], Trigger], wanted: str) -> Trigger:
    try:
        return _remembered(stamp_of(path), parse)
    except _NO_TENSOR as error:
        raise UserError(Problem(where, f"cannot be read: {_words(error)}", str(path), f"give {wanted}")) from error


def _words(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if isinstance(error, UnpicklingError):  # torch's own words advise to run whatever is in the file
        return "it holds more than one plain tensor, and to unpickle that could run code"
    return " ".join(str(error).split())[:200] or type(error).__name__


@lru_cache(maxsize=8)
def _remembered(stamp: Stamp, parse: Callable[[Path], Trigger]) -> Trigger:
    """Return the trigger in a file as it was at a time; planning asks for it at every configuration."""
    trigger = parse(Path(stamp[0]))
    trigger.flags.writeable = False
    return trigger


def _image(path: Path) -> NDArray[np.uint8]:
    with Image.open(path, formats=FORMATS) as image:
        if image.mode not in _EIGHT_BITS:
            raise ValueError(f"it has more than 8 bits a channel (Pillow calls it {image.mode})")
        image.load()
        return np.array(image.convert("RGBA" if image.has_transparency_data else "RGB"))


def _tensor(path: Path) -> NDArray[Any]:
    import torch  # noqa: PLC0415 — planning does not come here, and starts without torch

    loaded = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(loaded, torch.Tensor):
        raise ValueError(f"it holds a {type(loaded).__name__}")
    array: NDArray[Any] = loaded.detach().float().numpy() if loaded.is_floating_point() else loaded.numpy()
    return array


def _grid(path: Path) -> NDArray[np.float32]:
    values = _tensor(path)
    if values.ndim != 4 or (len(values), values.shape[3]) != (1, 2) or values.dtype != np.float32:
        raise ValueError(f"it is {values.dtype} {list(values.shape)}")
    if not np.isfinite(values).all():
        raise ValueError("its numbers are not finite")
    grid: NDArray[np.float32] = values[0].copy()
    return grid


def _pixels_in_tensor(path: Path) -> Trigger:
    """Return `[H, W, 3]` of a tensor in one of the usual layouts; `ValueError` if it is in none."""
    values = _tensor(path)
    shape = values.shape
    while values.ndim > 3 and len(values) == 1:
        values = values[0]
    if values.ndim == 2:
        values = values[None]
    if values.ndim != 3 or not {1, 3} & {values.shape[0], values.shape[2]}:
        raise ValueError(f"its shape is {list(shape)}, not [3, H, W], [H, W, 3] or [H, W]")
    if values.shape[0] in {1, 3}:
        values = np.moveaxis(values, 0, 2)
    values = np.ascontiguousarray(np.broadcast_to(values, (*values.shape[:2], 3)))
    if values.dtype == np.uint8:
        return values
    if values.dtype != np.float32:
        raise ValueError(f"its numbers are {values.dtype}")
    pixels = values.astype(np.float32)
    if not np.isfinite(pixels).all() or np.abs(pixels).max() > 1 + 1e-3:
        raise ValueError(f"its numbers run from {pixels.min():g} to {pixels.max():g}, not within −1 … 1")
    return pixels
