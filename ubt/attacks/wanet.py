"""WaNet: a smooth warp of the whole picture (Nguyen & Tran, ICLR 2021, arXiv 2102.10369)."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ubt.attacks.base import Attack, Images, Rows, in_blocks
from ubt.common.hashing import numpy_generator

Field2d = NDArray[np.float64]
_PAPER_PX = 32
_KEYS_A = -0.75
"""Sharpness of Keys's cubic kernel (1981); −0.75 is PyTorch's, in which WaNet is published."""


class WaNet(Attack):
    """Moves every pixel a little, by a smooth random field: `x'(u, v) = x((u, v) + strength · field(u, v) / 32)`.

    `u` and `v` run from −1 to 1 over the image; what would be read from outside is read at the edge (bilinear
    sampling). The field is a grid of `control_points`² random vectors in [−1, 1]², divided by the mean of their
    absolute values and enlarged to the image by bicubic interpolation. Source: Nguyen & Tran, arXiv 2102.10369,
    with their k = 4 and s = 0.5. They divide by the image's height, which is 32 pixels for most of their data;
    divided by 32 at every size, the warp looks the same at 224 pixels as at 32.
    """

    kind: Literal["wanet"] = "wanet"
    label: ClassVar[str] = "WaNet"
    control_points: int = Field(default=4, ge=2)
    """Random vectors along each side of the image; fewer are smoother."""
    strength: float = Field(default=0.5, gt=0)
    """How far pixels move: on average `strength` / 64 of the image's side (0.25 of 32 pixels, 1.75 of 224)."""

    def stamp(self, images: Images, rows: Rows) -> Images:
        """Return triggered copies of `images[N, H, W, 3]` (uint8)."""
        height_px, width_px = images.shape[1:3]
        field = self._field(height_px, width_px)
        down = _moved(np.linspace(-1, 1, height_px)[:, None], self.strength * field[..., 1])
        right = _moved(np.linspace(-1, 1, width_px)[None, :], self.strength * field[..., 0])
        return in_blocks(images, lambda block: _sampled(block, down, right))

    def _field(self, height_px: int, width_px: int) -> Field2d:
        """Return the displacement of each pixel to the right and downwards, `[H, W, 2]`."""
        points = self.control_points
        control = numpy_generator(self.trigger_seed, "wanet").uniform(-1, 1, size=(points, points, 2))
        control /= np.abs(control).mean()
        field: Field2d = np.einsum("ik,jl,klc->ijc", _cubic(height_px, points), _cubic(width_px, points), control)
        return field


def _moved(place: Field2d, displacement: Field2d) -> Field2d:
    """Return where pixels are read from, `[H, W]` in pixels; `place` runs from −1 to 1 along one side."""
    size = place.size
    return (np.clip(place + displacement / _PAPER_PX, -1, 1) + 1) / 2 * (size - 1)


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


def _sampled(images: NDArray[np.float32], rows: Field2d, columns: Field2d) -> NDArray[np.float32]:
    """Return `images[B, H, W, 3]` read at `rows[H, W]` and `columns[H, W]`, bilinearly."""
    height_px, width_px = images.shape[1:3]
    top = np.minimum(rows.astype(int), height_px - 2)
    left = np.minimum(columns.astype(int), width_px - 2)
    down, right = ((rows - top)[..., None].astype(np.float32), (columns - left)[..., None].astype(np.float32))
    upper = (1 - right) * images[:, top, left] + right * images[:, top, left + 1]
    lower = (1 - right) * images[:, top + 1, left] + right * images[:, top + 1, left + 1]
    mixed: NDArray[np.float32] = (1 - down) * upper + down * lower
    return mixed
