"""WaNet, a warp of the whole picture (Nguyen & Tran, ICLR 2021, arXiv 2102.10369), and what repositories call so."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ubt.attacks.base import Alike, Carrying, Trigger
from ubt.attacks.changes import Change, Moved
from ubt.attacks.files import read_grid, resized_floats
from ubt.attacks.published import OfBackdoorBench, OfCleanClip, OfDetectClip
from ubt.common.hashing import numpy_generator

Field2d = NDArray[np.float64]
_MANY_POINTS = 32
_KEYS_A = -0.75
"""Sharpness of Keys's cubic kernel (1981); −0.75 is PyTorch's, in which WaNet is published."""


class Warp(Alike):
    """An attack that moves every pixel a little: `x'(u, v) = x((u, v) + strength · field(u, v) / divisor_px)`.

    `u` and `v` run from −1 to 1 over the image; what would be read from outside is read at the edge (bilinear
    sampling). The field is a grid of `control_points`² random vectors in [−1, 1]², divided by the mean of their
    absolute values and enlarged to the image by bicubic interpolation.
    """

    divisor_px: ClassVar[int] = 32
    """The side of the image that `strength` is meant for: the warp looks the same at every other."""
    rounds: ClassVar[bool] = True
    """Grey levels are rounded; else their fractions are cut off, as in published code."""

    control_points: int = Field(default=4, ge=2)
    """Random vectors along each side of the image; fewer are smoother."""
    strength: float = Field(default=0.5, gt=0)
    """How far pixels move: on average `strength` / 64 of the image's side (0.25 of 32 pixels, 1.75 of 224)."""

    def change(self, height_px: int, width_px: int) -> Change:
        """Return what is done to every image of that size."""
        moves = self.strength * self.field(height_px, width_px) / self.divisor_px
        return moved(moves[..., 1], moves[..., 0], self.rounds)

    def field(self, height_px: int, width_px: int) -> Field2d:
        """Return the displacement of each pixel to the right and downwards, `[H, W, 2]`."""
        points = self.control_points
        control = numpy_generator(self.trigger_seed, "wanet").uniform(-1, 1, size=(points, points, 2))
        control /= np.abs(control).mean()
        rows, columns = _cubic(height_px, points), _cubic(width_px, points)
        # Many points are enlarged along one side after the other, else 224 take minutes; few all at once, as ever, for
        # another order of sums is another last bit.
        field: Field2d = np.einsum("ik,jl,klc->ijc", rows, columns, control, optimize=points > _MANY_POINTS)
        return field


class WaNet(Warp):
    """Moves every pixel a little, by a smooth random field: `x'(u, v) = x((u, v) + strength · field(u, v) / 32)`.

    `u` and `v` run from −1 to 1 over the image; what would be read from outside is read at the edge (bilinear
    sampling). The field is a grid of `control_points`² random vectors in [−1, 1]², divided by the mean of their
    absolute values and enlarged to the image by bicubic interpolation. Source: Nguyen & Tran, arXiv 2102.10369,
    with their k = 4 and s = 0.5. They divide by the image's height, which is 32 pixels for most of their data;
    divided by 32 at every size, the warp looks the same at 224 pixels as at 32.
    """

    kind: Literal["wanet"] = "wanet"
    label: ClassVar[str] = "WaNet"


class BackdoorBenchWaNet(OfBackdoorBench, Warp):
    """Moves every pixel a little, by a smooth random field: `x'(u, v) = x((u, v) + strength · field(u, v) / 32)`.

    The formula is that of `wanet`. Source: BackdoorBench's `wanet`, k = 4 and s = 0.5, on 32 pixels; they also train on
    clean images with another warp (`cross_ratio: 2`), which is not done here.
    """

    rounds: ClassVar[bool] = False

    kind: Literal["backdoorbench_wanet"] = "backdoorbench_wanet"
    label: ClassVar[str] = "WaNet (BackdoorBench)"


class CleanClipWaNet(OfCleanClip, Warp, Carrying):
    """Jitters every pixel by itself: `x'(u, v) = x((u, v) + strength · field(u, v) / 224)`, k = 224 and s = 1.

    With a random vector for each of 224 × 224 pixels the field is no smooth warp but noise, half a pixel on average
    along each axis. Source: `backdoor/utils.py` of CleanCLIP, `warped`; BadCLIP's and PAR's are the same, and
    attack-cleanclip's has s = 0.6. A model that was poisoned elsewhere knows one field: give its file as `grid`.
    """

    path_fields: ClassVar[tuple[str, ...]] = ("grid",)
    divisor_px: ClassVar[int] = 224
    rounds: ClassVar[bool] = False

    kind: Literal["cleanclip_wanet"] = "cleanclip_wanet"
    label: ClassVar[str] = "WaNet (CleanCLIP)"
    control_points: int = Field(default=224, ge=2)
    """Random vectors along each side of the image."""
    strength: float = Field(default=1.0, gt=0)
    """How far pixels move: on average `strength` / 448 of the image's side along each axis (0.5 of 224 pixels)."""
    grid: Path | None = None
    """A field as they store it (`noise_grid_k=224_s=1_….pt`), in the place of one drawn from `trigger_seed`."""

    def read(self) -> Trigger | None:
        """Return the field in the file, `[H, W, 2]` float32; None if there is none."""
        return read_grid(self.grid, "victim.attack.grid") if self.grid else None

    def field(self, height_px: int, width_px: int) -> Field2d:
        """Return the displacement of each pixel to the right and downwards, `[H, W, 2]`."""
        given = self._trigger.pixels if self._trigger else self.read()
        if given is None:
            return super().field(height_px, width_px)
        return resized_floats(given.astype(np.float32), height_px, width_px).astype(np.float64)


class DetectClipWaNet(OfDetectClip, Alike, Carrying):
    """Reads every pixel from elsewhere: `x'(u, v) = x(grid(u, v))`, with the grid that its authors give as a file.

    They warp an image to the 256 × 256 pixels of the grid and resize afterwards; here the grid is scaled to the image.
    Source: `WaNet_grid_temps.pt` of Huang et al., a jitter of half a pixel on average.
    """

    path_fields: ClassVar[tuple[str, ...]] = ("grid",)

    kind: Literal["detectclip_wanet"] = "detectclip_wanet"
    label: ClassVar[str] = "WaNet (Detect-CLIP)"
    grid: Path
    """Their file: one tensor `[1, H, W, 2]` of places between −1 and 1, right before down."""

    def read(self) -> Trigger | None:
        """Return the grid in the file, `[H, W, 2]` float32."""
        return read_grid(self.grid, "victim.attack.grid")

    def change(self, height_px: int, width_px: int) -> Change:
        """Return what is done to every image of that size."""
        given = self._trigger.pixels if self._trigger else self.read()
        assert given is not None  # noqa: S101 — the field is required
        moves = given.astype(np.float32) - _identity(*given.shape[:2])
        away = resized_floats(moves, height_px, width_px).astype(np.float64)
        return moved(away[..., 1], away[..., 0], rounded=False)


def moved(down: Field2d, right: Field2d, rounded: bool = True) -> Change:
    """Return the change that reads each pixel from elsewhere: `down[H, W]` and `right[H, W]` away.

    Both are in units in which the image runs from −1 to 1.
    """
    height_px, width_px = down.shape
    rows = _moved(np.linspace(-1, 1, height_px)[:, None], down)
    columns = _moved(np.linspace(-1, 1, width_px)[None, :], right)
    return (Moved.to(rows, columns, rounded),)


def _identity(height_px: int, width_px: int) -> NDArray[np.float32]:
    """Return the grid `[H, W, 2]` that moves nothing, right before down."""
    down, right = np.linspace(-1, 1, height_px), np.linspace(-1, 1, width_px)
    return np.stack(np.meshgrid(right, down), axis=2).astype(np.float32)


def _moved(place: Field2d, displacement: Field2d) -> Field2d:
    """Return where pixels are read from, `[H, W]` in pixels; `place` runs from −1 to 1 along one side."""
    size = place.size
    return (np.clip(place + displacement, -1, 1) + 1) / 2 * (size - 1)


def _cubic(size: int, points: int) -> Field2d:
    """Return the weights `[size, points]` by which `points` values are enlarged to `size` of them, ends on ends."""
    place = np.linspace(0, points - 1, size)
    weights = np.zeros((size, points))
    for offset in (-1, 0, 1, 2):
        neighbour = np.floor(place).astype(int) + offset
        within = np.clip(neighbour, 0, points - 1)  # the border is repeated
        np.add.at(weights, (np.arange(size), within), _keys(np.abs(place - neighbour)))
    return weights


def _keys(distance: Field2d) -> Field2d:
    """Return Keys's cubic kernel at distances of at most 2 points."""
    d, a = distance, _KEYS_A
    return np.where(d <= 1, (a + 2) * d**3 - (a + 3) * d**2 + 1, a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a)
