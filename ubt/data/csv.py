"""Image files that a list pairs with captions: what such data sets share, and those listed in CSV files."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import JsonValue

from ubt.common.errors import Problem
from ubt.common.hashing import fingerprint
from ubt.data.base import DataSet, DataSizes, Labelled, Pairs
from ubt.data.images import Decoders
from ubt.data.labelled import Evaluation, LabelledFiles, decode_rows, image_digest
from ubt.data.tables import Row, raise_if_any, read_rows


@dataclass(frozen=True)
class _Lists:
    """Everything that the lists say, checked."""

    train: Sequence[Row]
    pretrain: Sequence[Row] | None
    evaluation: Evaluation
    skipped: dict[str, int]


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
        lists = self._read()
        pretrain = None if lists.pretrain is None else _content(lists.pretrain, "pretrain")
        train = _content(lists.train, "train")
        return fingerprint({"kind": "csv", "train": train, "pretrain": pretrain, **lists.evaluation.content()})

    def sizes(self, cache: Path) -> DataSizes:
        """Return what the lists say.

        Raises:
            UserError: as `compute_key`.
        """
        lists = self._read()
        labelled = lists.evaluation
        return DataSizes(
            train=len(lists.train),
            pretrain=len(lists.pretrain or ()),
            captions=len(set(_captions(lists.train))),
            val=len(labelled.val),
            test=len(labelled.test),
            classes=len(labelled.classes),
            templates=len(labelled.templates),
        )

    def load(self, image_size_px: int, cache: Path) -> DataSet:
        """Return the data set, decoding its images into `cache` on first use.

        Raises:
            UserError: with every mistake in the lists, or else every image that cannot be decoded.
        """
        lists = self._read()
        evaluation, pretrain = lists.evaluation, lists.pretrain
        splits = {"train": lists.train, "val": evaluation.val, "test": evaluation.test}
        if pretrain is not None:
            splits["pretrain"] = pretrain
        problems: list[Problem] = []
        with Decoders(self.decode_workers) as decoders:
            images = decode_rows(splits, image_size_px, cache, decoders, problems)
        raise_if_any(problems)
        return DataSet(
            train=Pairs(
                images["train"],
                _captions(lists.train),
                _files(lists.train, self.images or self.pairs.parent),
                lists.skipped.get("pairs", 0),
            ),
            val=Labelled(images["val"], evaluation.val_labels),
            test=Labelled(images["test"], evaluation.test_labels),
            pretrain=None if pretrain is None else Pairs(images["pretrain"], _captions(pretrain)),
            classes=evaluation.classes,
            templates=evaluation.templates,
            skipped=lists.skipped,
        )

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
        pairs = {name: self._usable(rows, name, problems) for name, rows in read.items()}
        evaluation = self._evaluation(problems)
        raise_if_any(problems)
        skipped = {name: len(rows) - len(pairs[name]) for name, rows in read.items()} | {"labels": evaluation.skipped}
        some = {name: count for name, count in skipped.items() if count}
        return _Lists(pairs["pairs"], pairs.get("pretrain"), evaluation, some)

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


def _content(rows: Sequence[Row], label: str) -> JsonValue:
    return [image_digest(rows, label), fingerprint(list(_captions(rows)))]


def _captions(rows: Sequence[Row]) -> list[str]:
    return [row.text for row in rows]


def _files(rows: Sequence[Row], folder: Path) -> list[str]:
    """Return what the images are called, as far as the table says it."""
    return [str(row.image).removeprefix(f"{folder}/") for row in rows]
