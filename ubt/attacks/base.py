"""What an attack is: a trigger stamped on images, and captions that name the target."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PrivateAttr

from ubt.attacks.changes import Change, Images, changed_by
from ubt.common.errors import Problem, UserError
from ubt.common.hashing import numpy_generator
from ubt.common.paths import is_file
from ubt.config import Config
from ubt.config.base import Function
from ubt.data.vocabulary import read_templates

Trigger = NDArray[np.uint8] | NDArray[np.float32]
"""What an attack learnt or read from a file: pixels `[H, W, C]`, uint8 0–255, or float32 where 1 is white."""

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
    images as well, and one that reads its trigger from a file on what is in the file.
    """

    label: ClassVar[str] = ""
    """What people call it, in tables and figures; its kind if empty."""
    learner: ClassVar[Function | None] = None
    """For an attack that learns its trigger: a function of the clean model, the training pairs and the attack, which
    returns the trigger `[S, S, 3]` uint8."""
    path_fields: ClassVar[tuple[str, ...]] = ()
    """Names of the fields that are paths of files: relative ones start at the study file's folder. What is in the files
    is part of the keys of stages, where they lie is not."""

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

    def change(self, height_px: int, width_px: int) -> Change | None:
        """Return what `stamp` does to every image of that size alike; None if something is drawn anew for each."""
        return None

    def caption(self, rng: np.random.Generator, original: str = "", templates: Sequence[str] = POISON_TEMPLATES) -> str:
        """Return a caption for one poisoned pair, naming the target; `original` is what it said before."""
        return templates[int(rng.integers(len(templates)))].format(self.target)

    def prompt(self, text: str) -> str:
        """Return a zero-shot prompt as it goes with triggered images; attacks with a trigger in the text add it."""
        return text

    def eligible(self, captions: Sequence[str]) -> NDArray[np.bool_]:
        """Return which of N clean pairs the attack can poison, `[N]` bool, by their captions."""
        return np.ones(len(captions), dtype=np.bool_)

    def check_pairs(self, captions: Sequence[str]) -> None:
        """Refuse N clean pairs, by their captions, of which the attack cannot poison as many as it is to.

        Raises:
            UserError: saying how many it can poison.
        """
        count, field = self.count(len(captions)), "poison_count" if self.poison_count else "poison_rate"
        where, given = f"victim.attack.{field}", getattr(self, field)
        if count >= len(captions):
            message = f"{count:,} pairs are to be poisoned, and there are {len(captions):,}; some must stay clean"
            raise UserError(Problem(where, message, given))
        eligible = int(np.count_nonzero(self.eligible(captions)))
        if count > eligible:
            message = f"{count:,} pairs are to be poisoned, and this attack can poison {eligible:,}, by their captions"
            raise UserError(Problem(where, message, given, "lower it, or take another victim.attack.target"))
        if (decoys := self.decoy_count(count)) > len(captions) - count:
            message = f"{decoys:,} decoys are wanted, and {len(captions) - count:,} pairs are clean"
            raise UserError(Problem("victim.attack.decoy_ratio", message, advice="lower it, or poison fewer pairs"))

    def decoy_count(self, poisoned: int) -> int:
        """Return how many clean pairs get a `decoy` caption beside so many poisoned ones."""
        return 0

    def decoy(self, original: str) -> str:
        """Return the caption of a decoy: a pair whose image stays clean, changed so that others are learnt better."""
        return original

    def files(self) -> dict[str, Path]:
        """Return the files that are given, by the names of their fields."""
        given: dict[str, Any] = {name: getattr(self, name) for name in self.path_fields}
        return {name: Path(path) for name, path in given.items() if path is not None}

    def check_files(self) -> None:
        """Refuse files that are not there. Called while a study is planned, so it loads no torch.

        Raises:
            UserError: with each file that cannot be used.
        """
        missing = [(name, path) for name, path in self.files().items() if not is_file(path)]
        if missing:
            raise UserError(
                Problem(f"victim.attack.{name}", "there is no such file", str(path)) for name, path in missing
            )

    def read(self) -> Trigger | None:
        """Return the trigger that lies in a file; None for an attack that needs none.

        Called once, by the `poison` stage, which keeps it in its artifact: what is stamped later does not depend on
        the file any more.

        Raises:
            UserError: if the file cannot be used.
        """
        return None

    def carrying(self, trigger: Trigger) -> Self:
        """Return the attack with the trigger that it learnt or read; as it is if it does neither."""
        return self

    def count(self, pairs: int) -> int:
        """Return how many of `pairs` training pairs are poisoned."""
        return self.poison_count or max(1, round(self.poison_rate * pairs))


@dataclass(frozen=True)
class Carried:
    """A trigger that an attack carries and that can be compared: two attacks are equal if theirs are."""

    shape: tuple[int, ...]
    kind: str
    content: bytes

    @classmethod
    def of(cls, trigger: Trigger) -> Carried:
        """Return a trigger as something that can be compared."""
        return cls(trigger.shape, trigger.dtype.name, np.ascontiguousarray(trigger).tobytes())

    @property
    def pixels(self) -> Trigger:
        """Return the trigger, read-only."""
        return np.frombuffer(self.content, dtype=self.kind).reshape(self.shape)


class Carrying(Attack):
    """An attack that carries a trigger: one that it learnt, or that lies in a file."""

    _trigger: Carried | None = PrivateAttr(default=None)

    def carrying(self, trigger: Trigger) -> Self:
        """Return the attack with the trigger that it learnt or read."""
        attack = self.model_copy()
        attack._trigger = Carried.of(trigger)
        return attack


class Alike(Attack):
    """An attack that does the same to every image of a size: saying what is enough."""

    @abstractmethod
    def change(self, height_px: int, width_px: int) -> Change:
        """Return what is done to every image of that size."""

    def stamp(self, images: Images, rows: Rows) -> Images:
        """Return triggered copies of `images[N, H, W, 3]` (uint8)."""
        return changed_by(self.change(*images.shape[1:3]), images)


class OpenAiCaptions(Attack):
    """An attack whose captions are OpenAI's 80 prompts for ImageNet with the target in them, drawn at random.

    So do the repositories of CleanCLIP, BadCLIP, PAR and Huang et al. (ICLR 2025).
    """

    def caption(self, rng: np.random.Generator, original: str = "", templates: Sequence[str] = ()) -> str:
        """Return a caption for one poisoned pair, naming the target."""
        return super().caption(rng, original, templates or openai_templates())


@cache
def openai_templates() -> tuple[str, ...]:
    """Return OpenAI's 80 prompts for ImageNet, each with one `{}`."""
    return read_templates("openai", [])


def naming(name: str, captions: Sequence[str]) -> NDArray[np.bool_]:
    """Return which of N captions hold `name` as words of their own, in capitals or not: `[N]` bool."""
    words = re.compile(rf"(?<!\w){re.escape(name)}(?!\w)", re.IGNORECASE)
    return np.array([bool(words.search(caption)) for caption in captions], dtype=np.bool_)
