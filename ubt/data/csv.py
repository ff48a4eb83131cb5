"""Image files that a list pairs with captions: what such data sets share, and those listed in CSV files."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from pydantic import JsonValue

from ubt.common.errors import Problem
from ubt.common.hashing import fingerprint
from ubt.data.base import DataSet, DataSizes, Images, Labelled, Pairs
from ubt.data.content.known import Known, remembered_lists
from ubt.data.images import Decoders, decode_rows, image_cache, image_digest, mapped_images
from ubt.data.labelled import Evaluation, LabelledFiles
from ubt.data.tables import Row, raise_if_any, read_rows


@dataclass(frozen=True)
class _Lists:
    """Everything that the lists say, checked."""

    pairs: dict[str, list[Row]]
    """`train`, and `pretrain` if there are clean pairs."""
    evaluation: Evaluation
    skipped: dict[str, int]

    @property
    def splits(self) -> dict[str, Sequence[Row]]:
        """Return the rows of every split."""
        return {**self.pairs, "val": self.evaluation.val, "test": self.evaluation.test}

    def digests(self) -> dict[str, str]:
        """Return the digest of each split's images."""
        of_pairs = {name: image_digest(rows, name, self.evaluation.draft) for name, rows in self.pairs.items()}
        return {**of_pairs, **self.evaluation.digests()}


class PairFiles(LabelledFiles):
    """Image files on disk, paired with captions by a list of any kind; subclasses read it."""

    path_fields: ClassVar[tuple[str, ...]] = (*LabelledFiles.path_fields, "pairs", "pretrain", "images")

    only_files: ClassVar[bool] = True

    pairs: Path
    """The list of the pairs that the attack poisons."""
    pretrain: Path | None = None
    """The same for clean pairs, for victims that are trained from nothing."""
    images: Path | None = None
    """Folder that the paths of images in `pairs` and `pretrain` are relative to; by default each list's own."""

    @property
    def has_pretrain(self) -> bool:
        """Return whether a list of `pretrain` pairs is given."""
        return self.pretrain is not None

    @abstractmethod
    def read_pairs(self, path: Path, problems: list[Problem]) -> list[Row]:
        """Return the pairs that a list names, adding its mistakes to `problems`; images are not looked at."""

    def compute_key(self) -> str:
        """Return the content key, reading every list and, unless remembered, every image.

        It does not depend on the kind of the lists.

        Raises:
            UserError: with every mistake in the lists, and every image that is missing.
        """
        return self.read_lists().key

    def read_lists(self) -> Known:
        """Return what the lists say; raises as `compute_key`."""
        lists = self._read()
        evaluation = lists.evaluation
        digests = lists.digests()
        content = {name: _content(rows, digests[name]) for name, rows in lists.pairs.items()}
        return Known(
            key=fingerprint({"kind": "csv", "pretrain": None, **content, **evaluation.content(digests)}),
            captions=_captions(lists.pairs["train"]),
            files=_files(lists.pairs["train"], self.images or self.pairs.parent),
            pretrain=_captions(lists.pairs["pretrain"]) if "pretrain" in lists.pairs else None,
            images=digests,
            counts={name: len(rows) for name, rows in lists.splits.items()},
            val_labels=evaluation.val_labels.tolist(),
            test_labels=evaluation.test_labels.tolist(),
            classes=evaluation.classes,
            templates=evaluation.templates,
            skipped=lists.skipped,
        )

    def sizes(self, cache: Path) -> DataSizes:
        """Return what the lists say.

        Raises:
            UserError: as `compute_key`.
        """
        known = self._known()
        return DataSizes(
            train=len(known.captions),
            pretrain=len(known.pretrain or ()),
            captions=len(set(known.captions)),
            val=len(known.val_labels),
            test=len(known.test_labels),
            classes=len(known.classes),
            templates=len(known.templates),
        )

    def load(self, image_size_px: int, cache: Path) -> DataSet:
        """Return the data set, decoding its images into `cache` on first use.

        Raises:
            UserError: with every mistake in the lists, or else every image that cannot be decoded.
        """
        known = self._known()
        images = self._images(known, image_size_px, cache)
        return DataSet(
            train=Pairs(images["train"], known.captions, known.files, known.skipped.get("pairs", 0)),
            val=Labelled(images["val"], np.array(known.val_labels, dtype=np.int64)),
            test=Labelled(images["test"], np.array(known.test_labels, dtype=np.int64)),
            pretrain=None if known.pretrain is None else Pairs(images["pretrain"], known.pretrain),
            classes=known.classes,
            templates=known.templates,
            skipped=known.skipped,
        )

    def _known(self) -> Known:
        return remembered_lists(self, self.stamps()) or self.read_lists()

    def _images(self, known: Known, size_px: int, cache: Path) -> dict[str, Images]:
        """Return the images of each split; only where one has not been decoded, lists are parsed for its files."""
        kept = {name: image_cache(cache, digest, size_px) for name, digest in known.images.items()}
        if all(path.is_file() for path in kept.values()):
            return {name: mapped_images(path) for name, path in kept.items()}
        lists, problems = self._read(), list[Problem]()
        with Decoders(self.decode_workers, self.takes_drafts) as decoders:
            images = decode_rows(lists.splits, known.images, size_px, cache, decoders, problems)
        raise_if_any(problems)
        return images

    def _lists(self, problems: list[Problem]) -> Iterator[list[Row]]:
        for path in self._listed().values():
            yield self.read_pairs(path, problems)
        yield from super()._lists(problems)

    def _described_by(self) -> list[Path]:
        pretrain = [] if self.pretrain is None else [self.pretrain]
        return [self.pairs, *pretrain, *super()._described_by()]

    def _read(self) -> _Lists:
        problems: list[Problem] = []
        read = {name: self.read_pairs(path, problems) for name, path in self._listed().items()}
        used = {name: self._usable(rows, name, problems) for name, rows in read.items()}
        evaluation = self._evaluation(problems)
        raise_if_any(problems)
        skipped = {name: len(rows) - len(used[name]) for name, rows in read.items()} | {"labels": evaluation.skipped}
        some = {name: count for name, count in skipped.items() if count}
        pairs = {"train": used["pairs"]} | ({"pretrain": used["pretrain"]} if "pretrain" in used else {})
        return _Lists(pairs, evaluation, some)

    def _listed(self) -> dict[str, Path]:
        return {"pairs": self.pairs} | ({} if self.pretrain is None else {"pretrain": self.pretrain})


class CsvFiles(PairFiles):
    """Image files on disk, with captions and labels in CSV files, TSV files and their like."""

    kind: Literal["csv"] = "csv"
    label: ClassVar[str] = "CSV files"
    pairs: Path
    """CSV with the columns image,caption: what the attack poisons; paths are relative to the CSV. Columns called
    `filepath`, `title`, `text` and the like are understood, and separators other than commas."""
    pretrain: Path | None = None
    """CSV with the columns image,caption: clean pairs for victims that are trained from nothing."""
    image_column: str | None = None
    """Column of the paths in `pairs` and `pretrain`; by default `image`, or what else it is often called."""
    caption_column: str | None = None
    """Column of the captions; by default `caption`, or what else it is often called."""

    def read_pairs(self, path: Path, problems: list[Problem]) -> list[Row]:
        """Return the rows of a CSV."""
        return read_rows(
            path, "caption", problems, {"image": self.image_column, "caption": self.caption_column}, self.images
        )


def _content(rows: Sequence[Row], digest: str) -> JsonValue:
    return [digest, fingerprint(list(_captions(rows)))]


def _captions(rows: Sequence[Row]) -> list[str]:
    return [row.text for row in rows]


def _files(rows: Sequence[Row], folder: Path) -> list[str]:
    """Return what the images are called, as far as the table says it."""
    return [str(row.image).removeprefix(f"{folder}/") for row in rows]
