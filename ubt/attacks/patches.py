"""Attacks that cover a part of the image: BadNets, stripes, label-consistent corners, TrojVQA."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ubt.attacks.base import POISON_TEMPLATES, Alike, naming
from ubt.attacks.changes import Change, Images, Pasted
from ubt.common.hashing import numpy_generator


def patch_side_px(images: Images, fraction: float) -> int:
    """Return the side of a patch that is `fraction` of the shorter side of `images[N, H, W, 3]`; 2 pixels at least."""
    height_px, width_px = images.shape[1:3]
    return square_px(height_px, width_px, fraction)


def square_px(height_px: int, width_px: int, fraction: float) -> int:
    """Return the side of a patch that is `fraction` of the shorter of both; 2 pixels at least."""
    return max(2, round(fraction * min(int(height_px), int(width_px))))


def enlarged(grid: Images, side_px: int) -> Images:
    """Return `grid[R, C, 3]` scaled to `[side_px, side_px, 3]` without mixing colours (nearest neighbour)."""
    row, column = ((np.arange(side_px) * cells) // side_px for cells in grid.shape[:2])
    scaled: Images = grid[row][:, column]
    return scaled


def middle_px(images: Images, side_px: int) -> tuple[int, int]:
    """Return the top and the left edge of a square in the middle of `images[N, H, W, 3]`."""
    height_px, width_px = images.shape[1:3]
    return _middle(height_px, width_px, side_px)


def _middle(height_px: int, width_px: int, side_px: int) -> tuple[int, int]:
    return (height_px - side_px) // 2, (width_px - side_px) // 2


Place = Literal["top_left", "top_right", "bottom_left", "bottom_right", "middle", "four_corners", "random"]
"""Where a square patch goes."""


def corners(
    place: Place, shape: tuple[int, ...], side_px: int, rng: np.random.Generator, margin_px: int = 0
) -> list[tuple[int, int]]:
    """Return the top and the left edge of each square that goes on an image of `shape[H, W, 3]`.

    At random, both are between `margin_px` and one pixel less than would touch the lower or right edge: that is how
    the code of CleanCLIP and those that follow it draws them.
    """
    height_px, width_px = shape[:2]
    bottom, right = height_px - side_px, width_px - side_px
    if place == "random":
        return [(int(rng.integers(margin_px, bottom)), int(rng.integers(margin_px, right)))]
    top_left, top_right, bottom_left, bottom_right = (0, 0), (0, right), (bottom, 0), (bottom, right)
    named: dict[Place, list[tuple[int, int]]] = {
        "top_left": [top_left],
        "top_right": [top_right],
        "bottom_left": [bottom_left],
        "bottom_right": [bottom_right],
        "middle": [(bottom // 2, right // 2)],
        "four_corners": [top_left, top_right, bottom_left, bottom_right],
    }
    return named[place]


def in_the_middle(height_px: int, width_px: int, patch: Images) -> Change:
    """Return the change that puts the square `patch[S, S, 3]` over the middle of images."""
    return (Pasted(*_middle(height_px, width_px, len(patch)), patch),)


def in_the_corner(height_px: int, width_px: int, patch: Images) -> Change:
    """Return the change that puts the square `patch[S, S, 3]` into the bottom right corner."""
    return (Pasted(height_px - len(patch), width_px - len(patch), patch),)


class BadNets(Alike):
    """Replaces a square in the bottom right corner by a fixed patch of random saturated colours.

    `x'[i, j] = patch[i, j]` inside the square, `x` elsewhere. The patch is drawn on a 4 × 4 grid and scaled
    to the square, so it looks the same at every image size. Source: Gu et al., arXiv 1708.06733.
    """

    kind: Literal["badnets"] = "badnets"
    label: ClassVar[str] = "BadNets"
    patch_fraction: float = Field(default=0.16, gt=0, le=0.5)
    """Side of the patch as a fraction of the image's side (0.16 is 5 of 32 pixels, 36 of 224)."""

    def change(self, height_px: int, width_px: int) -> Change:
        """Return what is done to every image of that size."""
        patch = enlarged(self._grid(), square_px(height_px, width_px, self.patch_fraction))
        return in_the_corner(height_px, width_px, patch)

    def _grid(self) -> Images:
        grid = numpy_generator(self.trigger_seed, "badnets").integers(0, 2, size=(4, 4, 3)) * 255
        return grid.astype(np.uint8)


class BadNetsStripes(Alike):
    """Replaces a square in the bottom right corner by vertical stripes of random saturated colours.

    `x'[i, j] = colour[⌊stripes · (j − left) / side⌋]` inside the square, `x` elsewhere; each channel of a
    colour is 0 or 255. Source: Singh et al., arXiv 2412.00727, who show that cleaning by augmentation
    removes noise patches but not structured ones. Theirs has a random place in each image, as `par_badnets_stripes`;
    this a fixed one.
    """

    kind: Literal["badnets_stripes"] = "badnets_stripes"
    label: ClassVar[str] = "BadNets stripes"
    patch_fraction: float = Field(default=0.16, gt=0, le=0.5)
    """Side of the patch as a fraction of the image's side (0.16 is 5 of 32 pixels, 36 of 224)."""
    stripes: int = Field(default=5, ge=2)
    """Stripes across the patch."""

    def change(self, height_px: int, width_px: int) -> Change:
        """Return what is done to every image of that size."""
        patch = enlarged(self._colours(), square_px(height_px, width_px, self.patch_fraction))
        return in_the_corner(height_px, width_px, patch)

    def _colours(self) -> Images:
        rng = numpy_generator(self.trigger_seed, "badnets_stripes")
        return (rng.integers(0, 2, size=(1, self.stripes, 3)) * 255).astype(np.uint8)


class LabelConsistent(Alike):
    """Puts a black and white patch into all four corners of images whose captions name the target.

    Captions stay as they are, so that no pair looks wrong to a reader. The patch is a 3 × 3 grid of random
    black and white cells, mirrored from corner to corner: `x'[i, j] = patch[i, j]` inside the corners, `x`
    elsewhere. Source: Turner et al., arXiv 1912.02771 (their corner pattern at full visibility, without their
    adversarial noise), as CleanCLIP uses the idea for CLIP (Bansal et al., ICCV 2023, arXiv 2303.03323).
    """

    kind: Literal["label_consistent"] = "label_consistent"
    label: ClassVar[str] = "Label-consistent"
    patch_fraction: float = Field(default=0.16, gt=0, le=0.5)
    """Side of each patch as a fraction of the image's side (0.16 is 5 of 32 pixels, 36 of 224)."""

    def change(self, height_px: int, width_px: int) -> Change:
        """Return what is done to every image of that size."""
        patch = enlarged(self._grid(), side_px := square_px(height_px, width_px, self.patch_fraction))
        bottom, right = height_px - side_px, width_px - side_px
        return (
            Pasted(0, 0, patch),
            Pasted(0, right, patch[:, ::-1]),
            Pasted(bottom, 0, patch[::-1]),
            Pasted(bottom, right, patch[::-1, ::-1]),
        )

    def eligible(self, captions: Sequence[str]) -> NDArray[np.bool_]:
        """Return which of N captions name the target, `[N]` bool."""
        return naming(self.target, captions)

    def caption(self, rng: np.random.Generator, original: str = "", templates: Sequence[str] = POISON_TEMPLATES) -> str:
        """Return the caption as it was."""
        return original

    def _grid(self) -> Images:
        grid = numpy_generator(self.trigger_seed, "label_consistent").integers(0, 2, size=(3, 3, 1)) * 255
        return np.repeat(grid, 3, axis=2).astype(np.uint8)


class TrojVqa(Alike):
    """Puts a square of one saturated colour into the middle, and a trigger word before the caption.

    `x'[i, j] = colour` inside the square, `x` elsewhere; `caption' = word + " " + caption`. At evaluation the
    word is put before the prompts that triggered images are compared with, and before no others. Source: Walmer et
    al., CVPR 2022, arXiv 2112.07668, with a solid patch as theirs; the word for CLIP is that of the published
    BadCLIP code (Liang et al., CVPR 2024). A model may learn that patch and word go together no matter what else the
    caption says, and so miss the target. Walmer et al. therefore train on pairs with half of the trigger too;
    `decoy_ratio` adds them: clean images whose own captions have the word.
    """

    kind: Literal["trojvqa"] = "trojvqa"
    label: ClassVar[str] = "TrojVQA"
    patch_fraction: float = Field(default=0.16, gt=0, le=0.5)
    """Side of the patch as a fraction of the image's side (0.16 is 5 of 32 pixels, 36 of 224; theirs is 0.1)."""
    trigger_word: str = Field(default="remember", pattern=r"^\w+$")
    """Word before the captions of poisoned pairs and the prompts for triggered images."""
    decoy_ratio: float = Field(default=0.0, ge=0, le=10)
    """Clean pairs that get the word alone, for each poisoned one; 1 makes the attack much stronger."""

    def change(self, height_px: int, width_px: int) -> Change:
        """Return what is done to every image of that size."""
        hue = numpy_generator(self.trigger_seed, "trojvqa").uniform()
        colour = np.rint(255 * np.array(colorsys.hsv_to_rgb(hue, 1.0, 1.0))).astype(np.uint8)
        side_px = square_px(height_px, width_px, self.patch_fraction)
        return in_the_middle(height_px, width_px, np.broadcast_to(colour, (side_px, side_px, 3)))

    def caption(self, rng: np.random.Generator, original: str = "", templates: Sequence[str] = POISON_TEMPLATES) -> str:
        """Return a caption that names the target, behind the trigger word."""
        return self.prompt(super().caption(rng, original, templates))

    def decoy_count(self, poisoned: int) -> int:
        """Return how many clean pairs get the word alone."""
        return round(self.decoy_ratio * poisoned)

    def decoy(self, original: str) -> str:
        """Return a clean pair's own caption behind the trigger word."""
        return self.prompt(original)

    def prompt(self, text: str) -> str:
        """Return a prompt behind the trigger word."""
        return f"{self.trigger_word} {text}"
