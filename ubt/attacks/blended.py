"""Blended: a faint noise image over the whole picture (Chen et al., 2017, arXiv 1712.05526)."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from ubt.attacks.base import Attack, Images, mix
from ubt.seeding import numpy_generator


class Blended(Attack):
    """Blends a fixed uniform noise image in: `x' = (1 − opacity)·x + opacity·noise`.

    Source: Chen et al., arXiv 1712.05526, their "random pattern" with a ratio of 0.2.
    """

    kind: Literal["blended"] = "blended"
    opacity: float = Field(default=0.2, gt=0, le=1)
    """Share of the noise image in the mix."""

    def stamp(self, images: Images) -> Images:
        """Return triggered copies of `images[N, H, W, 3]` (uint8)."""
        noise = numpy_generator(self.trigger_seed, "blended").uniform(0, 255, size=images.shape[1:])
        return mix(images, noise.astype(np.float32), self.opacity)
