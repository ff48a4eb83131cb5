"""An attack and a detector for ubt-sweeper, from a package of their own."""

from typing import ClassVar, Literal

import torch
from pydantic import Field

from ubt.attacks import Attack, Images, Rows
from ubt.defenses.detectors import Detector
from ubt.engine.context import Output, StageContext
from ubt.models.clip import embed_pair_images
from ubt.stages.detectors import Trust, screened


class Plus(Attack):
    """A white plus sign in the top left corner."""

    kind: Literal["plus"] = "plus"
    label: ClassVar[str] = "Plus"
    arm_fraction: float = Field(default=0.2, gt=0, le=0.5)
    """Length of the sign as a fraction of the image's height."""

    def stamp(self, images: Images, rows: Rows) -> Images:
        """Return triggered copies of `images[N, H, W, 3]` (uint8)."""
        triggered, arm = images.copy(), max(3, round(self.arm_fraction * images.shape[1]))
        triggered[:, arm // 2, :arm] = triggered[:, :arm, arm // 2] = 255
        return triggered


def detect_centroid(context: StageContext) -> Output:
    """Return `pairs[V]` and `trust[V]`, the similarity of each image to the mean one under the poisoned model."""
    pairs = screened(context)
    images = embed_pair_images(context.clip("poisoned"), context.pairs, pairs)
    return Trust(torch.from_numpy(pairs), images @ images.mean(dim=0)).output()


class CentroidDetector(Detector):
    """Trust an image that is like the average one."""

    kind: Literal["centroid"] = "centroid"
    label: ClassVar[str] = "centroid"
    needs: ClassVar[tuple[str, ...]] = ("poisoned", "pairs")
    run: ClassVar = detect_centroid
