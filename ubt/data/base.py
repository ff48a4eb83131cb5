"""What a data set is: pairs to train on, and labelled images to evaluate on."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ubt.config import Config
from ubt.data.content.index import Entry

Images = NDArray[np.uint8]
"""`[N, H, W, 3]`, uint8, 0–255."""
Labels = NDArray[np.int64]
"""`[N]`, int64: indices into the data set's classes."""


class PairSource(Protocol):
    """Image–caption pairs that are handed out by the batch: all that training and embedding need of them."""

    @property
    def captions(self) -> Sequence[str]:
        """Return all N captions."""

    def __len__(self) -> int:
        """Return N."""

    def take(self, indices: NDArray[np.int64], /) -> Images:
        """Return the images `[B, H, W, 3]` uint8 at `indices[B]`."""


@dataclass(frozen=True)
class Pairs:
    """Image–caption pairs: `images[N, H, W, 3]` uint8 and N captions."""

    images: Images
    captions: Sequence[str]
    files: Sequence[str] | None = None
    """What their N image files are called, as the list of pairs has it; None if the images are no files."""
    skipped: int = 0
    """How many of the list were left out because their images are broken: the rows of the list count otherwise."""

    def __len__(self) -> int:
        return len(self.captions)

    def take(self, indices: NDArray[np.int64]) -> Images:
        """Return the images `[B, H, W, 3]` at `indices[B]`."""
        return self.images[indices]


@dataclass(frozen=True)
class Labelled:
    """Evaluation images: `images[N, H, W, 3]` uint8 and `labels[N]` int64."""

    images: Images
    labels: Labels

    def __len__(self) -> int:
        return len(self.labels)


class DataSizes(Config):
    """How much there is in a data set: what the cost of a stage depends on."""

    train: int = Field(ge=1)
    """Training pairs."""
    pretrain: int = Field(default=0, ge=0)
    """Clean pairs to train a model from nothing on, and for defenses that are given some."""
    captions: int = Field(ge=1)
    """Distinct captions among the training pairs: equal ones are embedded once."""
    val: int = Field(ge=1)
    """Labelled images for validation."""
    test: int = Field(ge=1)
    """Labelled images for the test."""
    classes: int = Field(ge=1)
    templates: int = Field(ge=1)
    """Prompts of each class."""

    @property
    def images(self) -> int:
        """Return how many images are decoded."""
        return self.train + self.pretrain + self.val + self.test


@dataclass(frozen=True)
class DataSet:
    """Everything a victim is trained and evaluated on; images are memory-mapped and shared by processes."""

    train: Pairs
    """Clean training pairs; the `poison` stage says which of them an attack replaces."""
    val: Labelled
    """What searches optimise on."""
    test: Labelled
    """What reports show."""
    classes: Sequence[str]
    templates: Sequence[str]
    """Prompts for zero-shot classification, each with one `{}`."""
    pretrain: Pairs | None = None
    """Clean pairs for victims that are trained from nothing."""
    skipped: Mapping[str, int] = field(default_factory=dict)
    """How many images of each list were left out because they are broken; lists without any are not in it."""

    @cached_property
    def sizes(self) -> DataSizes:
        """Return how much there is."""
        return DataSizes(
            train=len(self.train),
            pretrain=len(self.pretrain) if self.pretrain else 0,
            captions=len(set(self.train.captions)),
            val=len(self.val),
            test=len(self.test),
            classes=len(self.classes),
            templates=len(self.templates),
        )


class DataSource(Config):
    """A data set as configured, of one `kind`."""

    label: ClassVar[str] = ""
    """What people call it, in tables and figures; its kind if empty."""

    path_fields: ClassVar[tuple[str, ...]] = ()
    """Names of the fields that are paths of files: relative ones start at the study file's folder."""
    joined_path_fields: ClassVar[tuple[str, ...]] = ()
    """Those of them that may hold several paths, joined by `::`."""
    builtin_names: ClassVar[tuple[str, ...]] = ()
    """Values of those fields that are no files but names of what comes with a package, such as `imagenet`."""

    @property
    def has_pretrain(self) -> bool:
        """Return, without reading it, whether the data set will have `pretrain` pairs."""
        return False

    @abstractmethod
    def content_key(self) -> str:
        """Return a fingerprint of the content: equal data has an equal key, wherever it lies.

        Raises:
            UserError: if files are missing or unreadable, or a CSV lacks a column.
        """

    def contents(self) -> Iterable[Entry]:
        """Yield what the content key depends on, row by row, as far as it lies in files; nothing by default.

        Never refuses: what is missing is an entry that says so. It is asked where a key is not what it is to be, to
        find out in which row.
        """
        return ()

    def shared_facts(self) -> Path | None:
        """Return where this machine keeps what spares others from reading all that lies at addresses to know its key.

        The file has the same name on all of them, and need not be there. None, the default, if there is no such thing.

        Raises:
            UserError: if what lies there cannot be looked at.
        """
        return None

    def sizes(self, cache: Path) -> DataSizes | None:
        """Return how much there is, without decoding anything; None if that is not known before.

        `cache` is where `load` keeps what it has decoded: some kinds of data are counted then.

        Raises:
            UserError: as `content_key`.
        """
        return None

    @abstractmethod
    def class_names(self) -> Sequence[str]:
        """Return the classes, cheaply: what a study's target is checked against.

        Raises:
            UserError: if they cannot be read.
        """

    @abstractmethod
    def load(self, image_size_px: int, cache: Path) -> DataSet:
        """Return the data set with images of `image_size_px`, decoding into `cache` on first use.

        Raises:
            UserError: naming every image that is missing or damaged, with its row.
            OSError: if the disk of `cache` is full or not writable.
        """


@dataclass(frozen=True)
class Subset:
    """The pairs at `chosen[S]` int64 of `whole`, numbered from 0: a view, so images stay where they are."""

    whole: PairSource
    chosen: NDArray[np.int64]
    captions: Sequence[str]
    """Their S captions."""

    def __len__(self) -> int:
        return len(self.captions)

    def take(self, indices: NDArray[np.int64]) -> Images:
        """Return the images `[B, H, W, 3]` at `indices[B]`, which count the chosen pairs."""
        return self.whole.take(self.chosen[indices])


def subset(whole: PairSource, chosen: NDArray[np.int64]) -> Subset:
    """Return the pairs at `chosen[S]` of `whole`, in that order."""
    return Subset(whole, chosen, [whole.captions[index] for index in chosen])
