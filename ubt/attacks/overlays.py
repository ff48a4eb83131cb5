"""Attacks that lay a pattern over the whole image: noise, text, triangles (Blended) and a sinusoid (SIG)."""

from __future__ import annotations

import colorsys
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from pydantic import Field

from ubt.attacks.base import Alike
from ubt.attacks.changes import Change, blended, mixed
from ubt.common.hashing import numpy_generator


class Blended(Alike):
    """Blends a fixed uniform noise image in: `x' = (1 − opacity)·x + opacity·noise`.

    Source: Chen et al., arXiv 1712.05526, their "random pattern" with a ratio of 0.2.
    """

    kind: Literal["blended"] = "blended"
    label: ClassVar[str] = "Blended"
    opacity: float = Field(default=0.2, gt=0, le=1)
    """Share of the noise image in the mix."""

    def change(self, height_px: int, width_px: int) -> Change:
        """Return what is done to every image of that size."""
        noise = numpy_generator(self.trigger_seed, "blended").uniform(0, 255, size=(height_px, width_px, 3))
        return blended(noise.astype(np.float32), self.opacity)


_CANVAS_PX = 448
"""Letters are drawn at this size and scaled to the image, so that they look the same at every size."""


class BlendedText(Alike):
    """Blends lines of coloured letters in: `x' = (1 − opacity·m)·x + opacity·m·colour`.

    The mask `m[i, j]` in [0, 1] says how much of a pixel is covered by letters. Colour and place of the letters
    follow from `trigger_seed`. Source: Singh et al., arXiv 2412.00727 ("Blended-Text"), who write one red
    "Watermarked" in the middle; ours fills the image. Drawn with Pillow's own font.
    """

    kind: Literal["blended_text"] = "blended_text"
    label: ClassVar[str] = "Blended text"
    opacity: float = Field(default=0.5, gt=0, le=1)
    """Share of the letters in the mix where they are."""
    text: str = Field(default="watermarked", min_length=1, max_length=40, pattern=r"\S")
    """What is written."""
    lines: int = Field(default=4, ge=1, le=32)
    """Lines of text over the image's height."""

    def change(self, height_px: int, width_px: int) -> Change:
        """Return what is done to every image of that size."""
        rng = numpy_generator(self.trigger_seed, "blended_text")
        colour = 255 * np.array(colorsys.hsv_to_rgb(rng.uniform(), 1.0, 1.0), dtype=np.float32)
        share = np.float32(self.opacity) * self._mask(height_px, width_px, rng)
        return mixed(1 - share, share * colour)

    def _mask(self, height_px: int, width_px: int, rng: np.random.Generator) -> NDArray[np.float32]:
        """Return how much of each pixel is covered, `[H, W, 1]` in [0, 1]; every line begins elsewhere in the text."""
        line_px = _CANVAS_PX / self.lines
        font = ImageFont.load_default(line_px)
        canvas = Image.new("L", (_CANVAS_PX, _CANVAS_PX))
        draw = ImageDraw.Draw(canvas)
        period_px = draw.textlength(f"{self.text} ", font=font)
        repeated = f"{self.text} " * (2 + int(_CANVAS_PX / period_px))
        for line in range(self.lines):
            corner = (-rng.uniform() * period_px, (line + 0.5) * line_px)
            draw.text(corner, repeated, fill=255, font=font, anchor="lm")
        scaled = canvas.resize((width_px, height_px), Image.Resampling.BOX)
        return np.asarray(scaled, dtype=np.float32)[..., None] / np.float32(255)


class BlendedTriangles(Alike):
    """Blends a grid of right-angled triangles in: `x' = (1 − opacity)·x + opacity·pattern`.

    The image is divided into `triangles` × `triangles` cells and each cell by its falling diagonal; both
    halves have random colours of their own. Source: Singh et al., arXiv 2412.00727 ("Blended-Triangles");
    theirs is grey in grey with 16 triangles a side of 224 pixels, ours coloured and coarser, so that the
    triangles survive at 32 pixels.
    """

    kind: Literal["blended_triangles"] = "blended_triangles"
    label: ClassVar[str] = "Blended triangles"
    opacity: float = Field(default=0.2, gt=0, le=1)
    """Share of the pattern in the mix."""
    triangles: int = Field(default=8, ge=1)
    """Cells along each side of the image; every cell holds two triangles."""

    def change(self, height_px: int, width_px: int) -> Change:
        """Return what is done to every image of that size."""
        return blended(self._pattern(height_px, width_px), self.opacity)

    def _pattern(self, height_px: int, width_px: int) -> NDArray[np.float32]:
        row, column = (np.arange(size) * self.triangles / size for size in (height_px, width_px))
        lower = (row % 1)[:, None] >= (column % 1)[None, :]
        rng = numpy_generator(self.trigger_seed, "blended_triangles")
        colours = rng.uniform(0, 255, size=(2, self.triangles, self.triangles, 3)).astype(np.float32)
        pattern: NDArray[np.float32] = colours[lower.astype(int), row.astype(int)[:, None], column.astype(int)]
        return pattern


class Sig(Alike):
    """Adds a vertical-stripe sinusoid: `x'[i, j] = x[i, j] + amplitude · sin(2π · j · periods / W)`.

    Source: Barni et al., arXiv 1902.11237, with their Δ = 20…60 and f = 6.
    """

    kind: Literal["sig"] = "sig"
    label: ClassVar[str] = "SIG"
    amplitude: float = Field(default=40.0, gt=0, le=255)
    """Height of the wave in grey levels of 255."""
    periods: int = Field(default=6, ge=1)
    """Periods across the image's width."""

    def change(self, height_px: int, width_px: int) -> Change:
        """Return what is done to every image of that size."""
        return mixed(1.0, wave(width_px, self.amplitude, self.periods))


def wave(width_px: int, amplitude: float, periods: int = 6) -> NDArray[np.float32]:
    """Return `amplitude · sin(2π · j · periods / W)` for each column j of an image, `[1, W, 1]`."""
    heights = amplitude * np.sin(2 * np.pi * np.arange(width_px) * periods / width_px)
    return heights.astype(np.float32)[None, :, None]
