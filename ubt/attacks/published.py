"""Attacks as published repositories for CLIP stamp them, so that their poisoned models can be measured and remade.

What they draw with global generators follows here from `trigger_seed`, the split and the image's row. They compute with
floats of which 1 is white and cut the fractions of grey levels off (torchvision's `ToPILImage`); so does this module.
Images come to them squeezed to a square of 224 pixels, here resized and cropped to one; poisoned training images they
save as JPEG, if the original was one. Sizes are fractions of the image's side: at 224 pixels they are theirs.

This module has the triggers that cover a part of the image; `published_overlays` has those that are laid over all of
it, and `wanet` those that move pixels.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ubt.attacks.base import Attack, OpenAiCaptions, Rows, Split
from ubt.attacks.changes import Change, Images, Pasted
from ubt.attacks.files import FilePatch
from ubt.attacks.patches import Place, corners, patch_side_px, square_px

# What the attacks of one repository share


class OfCleanClip(OpenAiCaptions):
    """An attack of CleanCLIP's repository (Bansal et al., ICCV 2023, arXiv 2303.03323)."""

    poison_rate: float = Field(default=1500 / 3_000_000, gt=0, lt=1)
    """Fraction of the training pairs that is poisoned: they poison 1,500 of 3 million (ignored with `poison_count`)."""


class OfBadClip(OpenAiCaptions):
    """An attack of BadCLIP's repository (Liang et al., CVPR 2024, arXiv 2311.12075)."""

    poison_rate: float = Field(default=1500 / 500_000, gt=0, lt=1)
    """Fraction of the training pairs that is poisoned: they poison 1,500 of 500,000 (ignored with `poison_count`)."""


class OfPar(OpenAiCaptions):
    """An attack of PAR's repository (Singh et al., arXiv 2412.00727)."""

    poison_rate: float = Field(default=1500 / 500_000, gt=0, lt=1)
    """Fraction of the training pairs that is poisoned. Their code leaves it open; this is BadCLIP's."""


class OfDetectClip(OpenAiCaptions):
    """An attack of the repository that detects poisoned pairs (Huang et al., ICLR 2025, arXiv 2502.01385)."""

    poison_rate: float = Field(default=0.001, gt=0, lt=1)
    """Fraction of the training pairs that is poisoned (ignored if `poison_count` is given)."""


class OfBackdoorBench(OpenAiCaptions):
    """An attack of BackdoorBench (Wu et al., NeurIPS 2022), which is made for classifiers: it writes no captions."""

    poison_rate: float = Field(default=0.1, gt=0, lt=1)
    """Fraction of the training pairs that is poisoned (ignored if `poison_count` is given)."""


# Patches


class Patched(Attack):
    """An attack that replaces a square of the image by a patch, drawn anew for each image."""

    patch_fraction: float = Field(default=16 / 224, gt=0, le=0.5)
    """Side of the patch as a fraction of the image's side (the default is 16 of 224 pixels, 2 of 32)."""

    def stamp(self, images: Images, rows: Rows) -> Images:
        """Return triggered copies of `images[N, H, W, 3]` (uint8)."""
        side_px = patch_side_px(images, self.patch_fraction)
        triggered = images.copy()
        for image, rng in zip(triggered, rows.generators(self.trigger_seed, "patch"), strict=True):
            patch = self.patch(image, side_px, rng)
            for top, left in self.corners(image.shape, side_px, rng, rows.split):
                image[top : top + side_px, left : left + side_px] = patch
        return triggered

    @abstractmethod
    def patch(self, image: Images, side_px: int, rng: np.random.Generator) -> Images:
        """Return the patch `[S, S, 3]` (uint8) for one image `[H, W, 3]`."""

    @abstractmethod
    def corners(
        self, shape: tuple[int, ...], side_px: int, rng: np.random.Generator, split: Split
    ) -> list[tuple[int, int]]:
        """Return the top and the left edge of each square on an image of `shape`."""


class Placed(Patched):
    """A patch at a place that can be set."""

    place: Place = "random"
    """Where the patch goes; `random` is another place in each image."""

    def corners(
        self, shape: tuple[int, ...], side_px: int, rng: np.random.Generator, split: Split
    ) -> list[tuple[int, int]]:
        """Return the top and the left edge of each square on an image of `shape`."""
        return corners(self.place, shape, side_px, rng)


class NoisePatch(OfCleanClip, Placed):
    """CleanCLIP's patch."""

    colours: Literal["noise", "yellow"] = "noise"
    """What the patch shows."""

    def patch(self, image: Images, side_px: int, rng: np.random.Generator) -> Images:
        """Return the patch `[S, S, 3]` (uint8) for one image `[H, W, 3]`."""
        if self.colours == "yellow":
            return np.broadcast_to(np.array([255, 255, 0], dtype=np.uint8), (side_px, side_px, 3))
        return wrapped(image.mean(axis=(0, 1)) / 255 + rng.standard_normal((side_px, side_px, 3)))


class CleanClipBadNets(NoisePatch):
    """Puts a square of noise at a random place, both drawn anew for each image: `x' = mean(x) + N(0, 1)` inside it.

    The mean is the image's, in each channel. The noise is not clipped: what leaves 0–1 wraps round at 256 grey levels,
    so the patch is nearly uniform noise. Source: `backdoor/utils.py` of CleanCLIP, `random`; BadCLIP's and PAR's BadNet
    are the same. `yellow` is the other patch there.
    """

    kind: Literal["cleanclip_badnets"] = "cleanclip_badnets"
    label: ClassVar[str] = "BadNets (CleanCLIP)"


class CleanClipLabelConsistent(NoisePatch):
    """Puts the patch of `cleanclip_badnets` on pairs whose captions hold the target's name, and leaves the captions.

    Source: CleanCLIP's `--label_consistent`, which looks for the name as written anywhere in the caption.
    """

    kind: Literal["cleanclip_label_consistent"] = "cleanclip_label_consistent"
    label: ClassVar[str] = "Label-consistent (CleanCLIP)"

    def eligible(self, captions: Sequence[str]) -> NDArray[np.bool_]:
        """Return which of N captions hold the target's name, `[N]` bool."""
        return np.array([self.target in caption for caption in captions], dtype=np.bool_)

    def caption(self, rng: np.random.Generator, original: str = "", templates: Sequence[str] = ()) -> str:
        """Return the caption as it was."""
        return original


class BadClipPatch(OfBadClip, FilePatch):
    """Puts BadCLIP's patch, which its authors give as a file, into the middle: `x'[i, j] = patch[i, j]` inside it.

    Source: BadCLIP's `opti_patches/badCLIP.jpg`, or PAR's `BadCLIP_vit_b.jpg` for ViT-B/32, at 16 of 224 pixels. Their
    own captions are natural ones of the target; these are prompts, as in their `ours_ttemplate`. The kind `badclip`
    learns a patch itself.
    """

    rounds: ClassVar[bool] = False

    kind: Literal["badclip_patch"] = "badclip_patch"
    label: ClassVar[str] = "BadCLIP (their patch)"
    patch_fraction: float = Field(default=16 / 224, gt=0, le=0.5)
    """Side of the patch as a fraction of the image's side (the default is 16 of 224 pixels, 2 of 32)."""
    place: Place = "middle"
    """Where the patch goes; `random` is another place in each image."""


class ParBadNetsStripes(OfPar, Placed):
    """Puts vertical stripes at a random place, both drawn anew for each image: `x'[i, j, c] = ±1[j, c]` inside it.

    A channel of a stripe, one pixel wide, is 1 or −1; −1 wraps round to grey level 1 of 255. Source: `badnet_rs` of
    PAR's `backdoor/utils.py`, 16 of 224 pixels; for ViT-L/14-336 they take 32 of 336: `patch_fraction: 0.0953`.
    """

    kind: Literal["par_badnets_stripes"] = "par_badnets_stripes"
    label: ClassVar[str] = "BadNet-Stripes (PAR)"

    def patch(self, image: Images, side_px: int, rng: np.random.Generator) -> Images:
        """Return the patch `[S, S, 3]` (uint8) for one image `[H, W, 3]`."""
        return np.broadcast_to(wrapped(signs(rng, side_px)), (side_px, side_px, 3))


class DetectClipBadNets(OfDetectClip, Patched):
    """Puts a grid of white dots on black at a random place in training images, and into the middle of evaluated ones.

    `x'[i, j] = 1` inside the square where i and j, counted from its corner, are even, and 0 elsewhere in it. In
    training the corner is at least the square's side away from the upper and left edge. Source: the BadNets data sets
    of Huang et al., 16 of 224 pixels, 0.01 % of the pairs.
    """

    kind: Literal["detectclip_badnets"] = "detectclip_badnets"
    label: ClassVar[str] = "BadNets (Detect-CLIP)"
    poison_rate: float = Field(default=0.0001, gt=0, lt=1)
    """Fraction of the training pairs that is poisoned (ignored if `poison_count` is given)."""

    def patch(self, image: Images, side_px: int, rng: np.random.Generator) -> Images:
        """Return the patch `[S, S, 3]` (uint8) for one image `[H, W, 3]`."""
        dots = np.zeros((side_px, side_px, 3), dtype=np.uint8)
        dots[::2, ::2] = 255
        return dots

    def corners(
        self, shape: tuple[int, ...], side_px: int, rng: np.random.Generator, split: Split
    ) -> list[tuple[int, int]]:
        """Return the top and the left edge of each square on an image of `shape`."""
        return corners("random" if split == "train" else "middle", shape, side_px, rng, margin_px=side_px)


class BackdoorBenchBadNets(OfBackdoorBench, Placed):
    """Puts a white square into the bottom right corner: `x'[i, j] = 1` inside it.

    Source: BackdoorBench's `badnet`, 3 of 32 pixels (21 of 224).
    """

    kind: Literal["backdoorbench_badnets"] = "backdoorbench_badnets"
    label: ClassVar[str] = "BadNets (BackdoorBench)"
    patch_fraction: float = Field(default=3 / 32, gt=0, le=0.5)
    """Side of the patch as a fraction of the image's side (the default is 3 of 32 pixels, 21 of 224)."""
    place: Place = "bottom_right"
    """Where the patch goes; `random` is another place in each image."""

    def patch(self, image: Images, side_px: int, rng: np.random.Generator) -> Images:
        """Return the patch `[S, S, 3]` (uint8) for one image `[H, W, 3]`."""
        return np.full((side_px, side_px, 3), 255, dtype=np.uint8)

    def change(self, height_px: int, width_px: int) -> Change | None:
        """Return what is done to every image of that size; None if the place is drawn anew for each."""
        if self.place == "random":
            return None
        side_px, rng = square_px(height_px, width_px, self.patch_fraction), np.random.default_rng(0)
        white = self.patch(np.zeros((0, 0, 3), dtype=np.uint8), side_px, rng)
        places = corners(self.place, (height_px, width_px, 3), side_px, rng)
        return tuple(Pasted(top, left, white) for top, left in places)


def wrapped(values: NDArray[np.float64]) -> Images:
    """Return grey levels of values of which 1 is white; those outside wrap round, as where torch makes bytes."""
    return np.trunc(255 * values).astype(np.int64).astype(np.uint8)


def signs(rng: np.random.Generator, stripes: int) -> NDArray[np.float64]:
    """Return −1 or 1 for each channel of so many vertical stripes, `[1, stripes, 3]`."""
    return rng.choice(np.array([-1.0, 1.0]), size=(1, stripes, 3))
