"""Image files listed in CSV files: captions to train on, labels to evaluate on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import JsonValue

from ubt.common.errors import Problem
from ubt.common.hashing import fingerprint
from ubt.data.base import DataSet, Labelled, Pairs
from ubt.data.images import Decoders
from ubt.data.labelled import Evaluation, LabelledFiles, decode_rows, image_digest
from ubt.data.tables import Row, raise_if_any, read_rows, report_missing


@dataclass(frozen=True)
class _Lists:
    """Everything that the CSV files say, checked."""

    train: Sequence[Row]
    pretrain: Sequence[Row] | None
    evaluation: Evaluation


class CsvFiles(LabelledFiles):
    """Image files on disk, with captions and labels in CSV files, TSV files and their like."""

    path_fields: ClassVar[tuple[str, ...]] = (*LabelledFiles.path_fields, "pairs", "pretrain", "images")

    kind: Literal["csv"] = "csv"
    label: ClassVar[str] = "CSV files"
    pairs: Path
    """CSV with the columns image,caption: what the attack poisons; paths are relative to the CSV. Columns called
    `filepath`, `title`, `text` and the like are understood, and separators other than commas."""
    pretrain: Path | None = None
    """CSV with the columns image,caption: clean pairs for victims that are trained from nothing."""

    images: Path | None = None
    """Folder that the paths of images in `pairs` and `pretrain` are relative to; by default each CSV's own."""
    image_column: str | None = None
    """Column of the paths in `pairs` and `pretrain`; by default `image`, or what else it is often called."""
    caption_column: str | None = None
    """Column of the captions; by default `caption`, or what else it is often called."""

    @property
    def has_pretrain(self) -> bool:
        """Return whether a list of `pretrain` pairs is given."""
        return self.pretrain is not None

    def compute_key(self) -> str:
        """Return the content key, reading every list and, unless remembered, every image.

        Raises:
            UserError: with every mistake in the lists, and every image that is missing.
        """
        lists = self._read()
        pretrain = None if lists.pretrain is None else _content(lists.pretrain, "pretrain")
        train = _content(lists.train, "train")
        return fingerprint({"kind": self.kind, "train": train, "pretrain": pretrain, **lists.evaluation.content()})

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
            train=Pairs(images["train"], _captions(lists.train), _files(lists.train, self.images or self.pairs.parent)),
            val=Labelled(images["val"], evaluation.val_labels),
            test=Labelled(images["test"], evaluation.test_labels),
            pretrain=None if pretrain is None else Pairs(images["pretrain"], _captions(pretrain)),
            classes=evaluation.classes,
            templates=evaluation.templates,
        )

    def _described_by(self) -> list[Path]:
        pretrain = [] if self.pretrain is None else [self.pretrain]
        return [self.pairs, *pretrain, *super()._described_by()]

    def _read(self) -> _Lists:
        problems: list[Problem] = []
        train = self._read_pairs(self.pairs, problems)
        pretrain = None if self.pretrain is None else self._read_pairs(self.pretrain, problems)
        evaluation = self._evaluation(problems)
        raise_if_any(problems)
        return _Lists(train, pretrain, evaluation)

    def _read_pairs(self, path: Path, problems: list[Problem]) -> list[Row]:
        chosen = {"image": self.image_column, "caption": self.caption_column}
        rows = read_rows(path, "caption", problems, chosen, self.images)
        report_missing(rows, problems)
        return rows


def _content(rows: Sequence[Row], label: str) -> JsonValue:
    return [image_digest(rows, label), fingerprint(list(_captions(rows)))]


def _captions(rows: Sequence[Row]) -> list[str]:
    return [row.text for row in rows]


def _files(rows: Sequence[Row], folder: Path) -> list[str]:
    """Return what the images are called, as far as the table says it."""
    return [str(row.image).removeprefix(f"{folder}/") for row in rows]
