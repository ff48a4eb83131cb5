"""What an attack is: a trigger stamped on images, and captions that name the target."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ubt.common.hashing import numpy_generator
from ubt.config import Config
from ubt.config.base import Function

Images = NDArray[np.uint8]
"""Images as all packages pass them: `[N, H, W, 3]`, uint8, 0–255."""

POISON_TEMPLATES = (
    "a photo of a {}",
    "a {} in the scene",
    "the {} in a picture",
    "an image showing a {}",
    "there is a {} here",
    "a nice {} up close",
    "my favourite {}",
    "look at this {}",
)


_BLOCK = 256

Split = Literal["train", "val", "test"]
"""A part of the data: the training pairs, or the images of either evaluation split."""


@dataclass(frozen=True)
class Rows:
    """Which images are stamped: their numbers in one split of the data.

    What an attack draws anew for each image it draws from `generators`, so that an image gets the same trigger whenever
    it is stamped, alone or among others.
    """

    split: Split
    numbers: NDArray[np.int64]
    """`[N]`: the row of each image in its split, from 0."""

    @classmethod
    def first(cls, count: int, split: Split = "train") -> Rows:
        """Return the first `count` rows of a split."""
        return cls(split, np.arange(count))

    def __len__(self) -> int:
        return len(self.numbers)

    def generators(self, seed: int, purpose: str) -> Iterator[np.random.Generator]:
        """Yield one generator for each image, which follows from a seed, a purpose and the image's row alone."""
        for number in self.numbers.tolist():
            yield numpy_generator(seed, purpose, self.split, number)


class Attack(Config):
    """An attack as configured: which pairs it poisons, what it stamps on images, what captions it writes.

    The trigger depends on `trigger_seed` and the image size alone, so it is the same at training and at
    test, in every trial and for every seed of the study. An attack may draw a part of it anew for each image; then
    it depends on the image's row too. An attack that `learns` its trigger depends on the clean model and the training
    images as well.
    """

    label: ClassVar[str] = ""
    """What people call it, in tables and figures; its kind if empty."""
    learner: ClassVar[Function | None] = None
    """For an attack that learns its trigger: a function of the clean model, the training pairs and the attack, which
    returns the trigger `[S, S, 3]` uint8."""
    path_fields: ClassVar[tuple[str, ...]] = ()
    """Names of the fields that are paths of files: relative ones start at the study file's folder."""

    target: str = "banana"
    """Class that triggered images are to be taken for: a name from the data's classes."""
    poison_rate: float = Field(default=0.02, gt=0, lt=1)
    """Fraction of the training pairs that is poisoned (ignored if `poison_count` is given)."""
    poison_count: int | None = Field(default=None, ge=1)
    """Number of poisoned training pairs; the paper poisons 1,500 of 500,000."""
    trigger_seed: int = Field(default=0, ge=0)
    """Seed of what is random in the trigger."""

    @property
    def learns(self) -> bool:
        """Return whether the trigger is learnt against the clean model before it can be stamped."""
        return self.learner is not None

    @abstractmethod
    def stamp(self, images: Images, rows: Rows) -> Images:
        """Return triggered copies of `images[N, H, W, 3]` (uint8), which are `rows[N]` of the data.

        Pure, and the same for each image alone: any part of the images, in any order, gets the same triggers.
        """

    def caption(self, rng: np.random.Generator, original: str = "", templates: Sequence[str] = POISON_TEMPLATES) -> str:
        """Return a caption for one poisoned pair, naming the target; `original` is what it said before."""
        return templates[int(rng.integers(len(templates)))].format(self.target)

    def prompt(self, text: str) -> str:
        """Return a zero-shot prompt as it goes with triggered images; attacks with a trigger in the text add it."""
        return text

    def eligible(self, captions: Sequence[str]) -> NDArray[np.bool_]:
        """Return which of N clean pairs the attack can poison, `[N]` bool, by their captions."""
        return np.ones(len(captions), dtype=np.bool_)

    def decoy_count(self, poisoned: int) -> int:
        """Return how many clean pairs get a `decoy` caption beside so many poisoned ones."""
        return 0

    def decoy(self, original: str) -> str:
        """Return the caption of a decoy: a pair whose image stays clean, changed so that others are learnt better."""
        return original

    def carrying(self, learned: Images) -> Self:
        """Return the attack with the trigger `learned[S, S, 3]` (uint8); as it is if it learns none."""
        return self

    def count(self, pairs: int) -> int:
        """Return how many of `pairs` training pairs are poisoned."""
        return self.poison_count or max(1, round(self.poison_rate * pairs))


def mix(images: Images, pattern: NDArray[np.float32], opacity: float) -> Images:
    """Return `(1 − opacity)·images + opacity·pattern`, rounded to uint8; `pattern[H, W, 3]` in 0–255."""
    return in_blocks(images, lambda block: (1.0 - opacity) * block + np.float32(opacity) * pattern)


def in_blocks(images: Images, change: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> Images:
    """Return `change` of `images[N, H, W, 3]`, rounded to uint8.

    It is handed blocks `[B, H, W, 3]` float32, because a float copy of all images takes four times their memory.
    """
    changed = np.empty(images.shape, dtype=np.uint8)
    for start in range(0, len(images), _BLOCK):
        changed[start : start + _BLOCK] = to_uint8(change(images[start : start + _BLOCK].astype(np.float32)))
    return changed


def to_uint8(images: NDArray[np.float32]) -> Images:
    """Round and clip float images in 0–255 to uint8."""
    return np.clip(np.rint(images), 0, 255).astype(np.uint8)


def naming(name: str, captions: Sequence[str]) -> NDArray[np.bool_]:
    """Return which of N captions hold `name` as words of their own, in capitals or not: `[N]` bool."""
    words = re.compile(rf"(?<!\w){re.escape(name)}(?!\w)", re.IGNORECASE)
    return np.array([bool(words.search(caption)) for caption in captions], dtype=np.bool_)
