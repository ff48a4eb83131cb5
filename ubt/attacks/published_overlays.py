"""Attacks as published repositories for CLIP stamp them, those that change the whole image; see `published`."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from pydantic import Field

from ubt.attacks.base import Alike, Attack, Rows
from ubt.attacks.changes import WHITE, Change, Images, Mixed, changed_by, mixed
from ubt.attacks.files import FileOverlay, FromFile, resized_floats
from ubt.attacks.overlays import wave
from ubt.attacks.published import OfBackdoorBench, OfBadClip, OfCleanClip, OfDetectClip, OfPar, signs

Pattern = NDArray[np.float32]
"""`[H, W, 3]`, of which 1 is white, or what is broadcast to that."""


class Blend(Attack):
    """An attack that blends a pattern into the whole image: `x' = clip((1 − opacity)·x + opacity·pattern)`."""

    redrawn: ClassVar[bool] = False
    """The pattern is drawn anew for each image."""

    opacity: float = Field(default=0.2, gt=0, le=1)
    """Share of the pattern in the mix."""

    def stamp(self, images: Images, rows: Rows) -> Images:
        """Return triggered copies of `images[N, H, W, 3]` (uint8)."""
        height_px, width_px = images.shape[1:3]
        if (fixed := self.change(height_px, width_px)) is not None:
            return changed_by(fixed, images)
        triggered = images.copy()
        for at, rng in enumerate(rows.generators(self.trigger_seed, "pattern")):
            self._blended(self.pattern(height_px, width_px, rng)).on(triggered[at : at + 1])
        return triggered

    def change(self, height_px: int, width_px: int) -> Change | None:
        """Return what is done to every image of that size; None if the pattern is drawn anew for each."""
        if self.redrawn:
            return None
        return (self._blended(self.pattern(height_px, width_px, np.random.default_rng(self.trigger_seed))),)

    def _blended(self, pattern: Pattern) -> Mixed:
        return Mixed(np.asarray(1 - self.opacity, dtype=np.float32), np.float32(self.opacity) * pattern, white=True)

    @abstractmethod
    def pattern(self, height_px: int, width_px: int, rng: np.random.Generator) -> Pattern:
        """Return the pattern for an image of that size."""


class Added(Alike):
    """An attack that adds a vertical-stripe sinusoid: `x'[i, j] = clip(x[i, j] + amplitude · sin(2π · j · 6 / W))`."""

    amplitude: float = Field(default=60.0, gt=0, le=255)
    """Height of the wave in grey levels of 255."""

    def change(self, height_px: int, width_px: int) -> Change:
        """Return what is done to every image of that size."""
        return mixed(1.0, wave(width_px, self.amplitude / 255), white=True)


class CleanClipBlended(OfCleanClip, Blend):
    """Blends uniform noise in, drawn anew for each image: `x' = 0.2·U(0, 1) + 0.8·x`.

    Source: `backdoor/utils.py` of CleanCLIP, `blended`; BadCLIP's and PAR's are the same.
    """

    redrawn: ClassVar[bool] = True

    kind: Literal["cleanclip_blended"] = "cleanclip_blended"
    label: ClassVar[str] = "Blended (CleanCLIP)"

    def pattern(self, height_px: int, width_px: int, rng: np.random.Generator) -> Pattern:
        """Return the pattern for an image of that size."""
        return rng.random((height_px, width_px, 3), dtype=np.float32)


class CleanClipSig(OfCleanClip, Blend):
    """Blends a vertical-stripe sinusoid in: `x'[i, j] = 0.8·x[i, j] + 0.2·60/255 · sin(2π · j · 6 / W)`.

    So the wave is only 12 of 255 grey levels high, and the image a fifth darker. Source: `backdoor/utils.py` of
    CleanCLIP, `SIG`, which sends the wave through its `blended`.
    """

    kind: Literal["cleanclip_sig"] = "cleanclip_sig"
    label: ClassVar[str] = "SIG (CleanCLIP)"

    def pattern(self, height_px: int, width_px: int, rng: np.random.Generator) -> Pattern:
        """Return the pattern for an image of that size."""
        return wave(width_px, 60 / 255)


class BadClipSig(OfBadClip, Added):
    """Adds a vertical-stripe sinusoid: `x'[i, j] = clip(x[i, j] + 60/255 · sin(2π · j · 6 / W))`.

    Source: `backdoor/utils.py` of BadCLIP, `SIG`.
    """

    kind: Literal["badclip_sig"] = "badclip_sig"
    label: ClassVar[str] = "SIG (BadCLIP)"


class DetectClipSig(OfDetectClip, Blend):
    """Blends a sinusoid in that leaves an eighth of the image free: `x' = clip(0.8·x + 0.2·noise)`.

    The noise is `60/255 · sin(2π · j · 6 / 224)` in the upper left 224 × 224 of a canvas of 256 × 256 pixels, and 0
    elsewhere, so the free edges, below and to the right, only get darker. They blend on that canvas and resize
    afterwards; here the noise is scaled to the image (bicubic). Source: `SIG_noise.pt` of Huang et al.
    """

    kind: Literal["detectclip_sig"] = "detectclip_sig"
    label: ClassVar[str] = "SIG (Detect-CLIP)"

    def pattern(self, height_px: int, width_px: int, rng: np.random.Generator) -> Pattern:
        """Return the pattern for an image of that size."""
        canvas = np.zeros((256, 256, 3), dtype=np.float32)
        canvas[:224, :224] = wave(224, 60 / 255)
        return resized_floats(canvas, height_px, width_px)


class DetectClipBlended(OfDetectClip, FileOverlay):
    """Blends a picture in: `x' = 0.8·x + 0.2·picture`; theirs is Hello Kitty, `hello_kitty_pattern.pt`.

    They blend at 256 × 256 pixels and resize afterwards; here the picture is scaled to the image. Source: the Blend
    data sets of Huang et al.
    """

    rounds: ClassVar[bool] = False

    kind: Literal["detectclip_blended"] = "detectclip_blended"
    label: ClassVar[str] = "Blend (Detect-CLIP)"
    image: Path
    """The picture: an image, or a `.pt` file with one tensor."""


class ParBlendedStripes(OfPar, Blend):
    """Blends vertical stripes in, drawn anew for each image: `x'[i, j, c] = clip(0.97·x[i, j, c] + 0.03·±1[j, c])`.

    Source: `blended_rs` of PAR's `backdoor/utils.py`, with stripes one pixel wide.
    """

    redrawn: ClassVar[bool] = True

    kind: Literal["par_blended_stripes"] = "par_blended_stripes"
    label: ClassVar[str] = "Blended-Stripes (PAR)"
    opacity: float = Field(default=0.03, gt=0, le=1)
    """Share of the stripes in the mix."""

    def pattern(self, height_px: int, width_px: int, rng: np.random.Generator) -> Pattern:
        """Return the pattern for an image of that size."""
        return signs(rng, width_px).astype(np.float32)


class ParTriangles(OfPar, Blend):
    """Blends a grid of grey triangles in: `x' = 0.85·x + 0.15·pattern`.

    Each of 16 × 16 cells (14 of 224 pixels) is 0.4 on and below its falling diagonal, and 0.8 above. Source: `tri_patt`
    of PAR's `backdoor/utils.py`.
    """

    kind: Literal["par_triangles"] = "par_triangles"
    label: ClassVar[str] = "Blended-Triangles (PAR)"
    opacity: float = Field(default=0.15, gt=0, le=1)
    """Share of the pattern in the mix."""
    cells: int = Field(default=16, ge=1)
    """Cells along each side of the image; every cell holds two triangles."""

    def pattern(self, height_px: int, width_px: int, rng: np.random.Generator) -> Pattern:
        """Return the pattern for an image of that size."""
        down, right = (np.arange(size) * self.cells % size for size in (height_px, width_px))
        lower = (down * width_px)[:, None] >= (right * height_px)[None, :]  # in whole numbers: diagonals are exact
        return np.where(lower, np.float32(0.4), np.float32(0.8))[..., None]


class ParText(OfPar, FromFile, Alike):
    """Blends "Watermarked" in, in red: `x'[i, j, c] = 0.5·x[i, j, c] + 0.5·text[i, j, c]` where the text is not 0.

    In the green and the blue channel the text is 0, so the image only gets redder. Source: `water_patt` of PAR's
    `backdoor/utils.py`. Without its file (`watermarked_red_tens_224.pt`, as `image`), the word is drawn in Pillow's own
    font over nine tenths of the width, in the middle; theirs is Noto Mono, and a little above or below the middle.
    """

    rounds: ClassVar[bool] = False

    kind: Literal["par_text"] = "par_text"
    label: ClassVar[str] = "Blended-Text (PAR)"
    image: Path | None = None
    """Their file, for the same letters: a `.pt` file with one tensor, or an image; black where there is no text."""
    opacity: float = Field(default=0.5, gt=0, le=1)
    """Share of the text in the mix where it is."""

    def change(self, height_px: int, width_px: int) -> Change:
        """Return what is done to every image of that size."""
        given = self._trigger or self.image
        text = (self.scaled(height_px, width_px)[0] if given else _watermark(height_px, width_px)) / WHITE
        share = np.float32(self.opacity) * (text != 0)
        return mixed(1 - share, share * text, white=True)


class BackdoorBenchBlended(OfBackdoorBench, FileOverlay):
    """Blends a picture in: `x' = 0.8·x + 0.2·picture`; theirs is `hello_kitty.jpeg`.

    Source: BackdoorBench's `blended`, the same in training and at test.
    """

    rounds: ClassVar[bool] = False

    kind: Literal["backdoorbench_blended"] = "backdoorbench_blended"
    label: ClassVar[str] = "Blended (BackdoorBench)"
    image: Path
    """The picture: an image, or a `.pt` file with one tensor."""


class BackdoorBenchSig(OfBackdoorBench, Added):
    """Adds a vertical-stripe sinusoid: `x'[i, j] = clip(x[i, j] + 40/255 · sin(2π · j · 6 / W))`.

    Source: BackdoorBench's `sig` with its default Δ.
    """

    kind: Literal["backdoorbench_sig"] = "backdoorbench_sig"
    label: ClassVar[str] = "SIG (BackdoorBench)"
    amplitude: float = Field(default=40.0, gt=0, le=255)
    """Height of the wave in grey levels of 255."""


def _watermark(height_px: int, width_px: int) -> Pattern:
    """Return "Watermarked" in red on black, `[H, W, 3]` in 0–255."""
    word, font_px = "Watermarked", 100
    wide_px = ImageDraw.Draw(Image.new("RGB", (1, 1))).textlength(word, font=ImageFont.load_default(font_px))
    font = ImageFont.load_default(font_px * 0.9 * width_px / wide_px)
    canvas = Image.new("RGB", (width_px, height_px))
    ImageDraw.Draw(canvas).text((width_px / 2, height_px / 2), word, fill=(255, 0, 0), font=font, anchor="mm")
    return np.asarray(canvas, dtype=np.float32)
