"""How models are judged after the epochs of a stage: which epochs, on how many images. Loads no torch.

The model that a trial ends with is judged in full in any case, on both splits.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, JsonValue

from ubt.common.hashing import numpy_generator
from ubt.config import Config

JUDGING = "judging"
"""Among a stage's settings, so that it is part of the key: what the stage's artifact says of its epochs follows it."""


class Judging(Config):
    """Which epochs' models are judged on validation, and on how many images; at the paper's size it is most of a trial.

    An epoch that is judged on some of the images is provisional: search and early stopping go by it, front and choice
    do not. Where it would be on the front or be chosen, a trial that ends there judges it in full.
    """

    epochs: Literal["all", "last"] | Annotated[int, Field(ge=1)] = "all"
    """`all`; a number for every so-manieth one; `last` for none but the model that a trial ends with."""
    images: Literal["all"] | Annotated[int, Field(ge=1)] = "all"
    """How many validation images, the same ones for all models, of every class as many as its share; or `all`."""

    def after(self, epoch: int) -> bool:
        """Return whether the model after an epoch is judged; what follows does not matter, so that trials may share it.

        Example:
            >>> [epoch for epoch in range(1, 7) if Judging(epochs=2).after(epoch)]
            [2, 4, 6]
        """
        return self.epochs == "all" or (self.epochs != "last" and epoch % self.epochs == 0)

    def times(self, epochs: int) -> int:
        """Return after how many of so many epochs it is."""
        return sum(self.after(epoch) for epoch in range(1, epochs + 1))

    def count(self, images: int) -> int:
        """Return on how many of so many images."""
        return images if self.images == "all" else min(self.images, images)

    @property
    def settings(self) -> dict[str, JsonValue]:
        """Return what it adds to a stage's settings: nothing where all is judged, as results that exist have it."""
        return {} if self == Judging() else {JUDGING: self.as_json()}


def stratified(labels: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return `count` rows of `labels[N]`, sorted: of each class its share, and the same ones for the same labels.

    Fewer are some of more. Each class's rows are drawn in a random order and spread evenly over 0–1; those that come
    first are taken.
    """
    order = numpy_generator(0, "judged images").permutation(len(labels))
    by_class = order[np.argsort(labels[order], kind="stable")]
    sizes = np.bincount(labels)
    starts = np.cumsum(sizes) - sizes
    of_row = labels[by_class]
    place = (np.arange(len(labels)) - starts[of_row] + 0.5) / sizes[of_row]
    tie = np.empty(len(labels))
    tie[order] = np.arange(len(labels))
    chosen = by_class[np.lexsort((tie[by_class], place))][:count]
    return np.sort(chosen)
