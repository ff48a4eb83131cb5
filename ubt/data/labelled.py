"""What data sets in files share: labelled images, split in two, the words they are judged with, and a decoded copy."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, JsonValue, SerializerFunctionWrapHandler, model_serializer

from ubt.common.errors import LISTED, Problem
from ubt.common.hashing import numpy_generator
from ubt.common.paths import is_folder
from ubt.data.base import DataSource, Labels
from ubt.data.broken import report_missing, without_broken
from ubt.data.content.index import Entry, entries, lines
from ubt.data.content.known import Known, key_of
from ubt.data.decode import DECODER_VERSION
from ubt.data.digests import Stamp, stamp_if_there
from ubt.data.folders import class_folders, read_folders
from ubt.data.images import image_digest
from ubt.data.tables import Row, raise_if_any, read_rows
from ubt.data.vocabulary import (
    IMAGENET,
    TEMPLATES,
    class_index,
    nearest_class,
    read_classes,
    read_synsets,
    read_templates,
    vocabulary_files,
)


@dataclass(frozen=True)
class Evaluation:
    """Labelled rows, split in two, and the words they are evaluated with; labels are `[N]` int64."""

    val: Sequence[Row]
    val_labels: Labels
    test: Sequence[Row]
    test_labels: Labels
    classes: Sequence[str]
    templates: Sequence[str]
    skipped: int = 0
    """Rows that were left out because their images are broken."""
    draft: bool = False
    """JPEG files are decoded as drafts."""

    def digests(self) -> dict[str, str]:
        """Return the digest of each split's images."""
        return {name: image_digest(rows, name, self.draft) for name, rows in (("val", self.val), ("test", self.test))}

    def content(self, digests: Mapping[str, str]) -> dict[str, JsonValue]:
        """Return what the evaluation depends on, wherever the files lie; `digests` are those of its images."""
        return {
            "decoder": DECODER_VERSION,
            "val": [digests["val"], self.val_labels.tolist()],
            "test": [digests["test"], self.test_labels.tolist()],
            "classes": list(self.classes),
            "templates": list(self.templates),
        }


_SINCE = "test_labels synsets label_column on_broken max_broken images image_column caption_column jpeg"
_LATER = frozenset(_SINCE.split())
"""Fields that version 0.1 did not have."""


class LabelledFiles(DataSource):
    """A data set whose evaluation images are listed in a CSV, or lie in folders; subclasses add the training pairs."""

    path_fields: ClassVar[tuple[str, ...]] = ("labels", "test_labels", "classes", "templates", "synsets")
    builtin_names: ClassVar[tuple[str, ...]] = (IMAGENET, *TEMPLATES)

    only_files: ClassVar[bool] = False
    """Each image is a file of its own, of this machine, and so is each list."""

    labels: Path
    """Folder with a folder of images for each class, as ImageNet's; or CSV with the columns image,label: class names
    or indices; paths are relative to the CSV."""
    test_labels: Path | None = None
    """Folder or CSV like `labels`, of the test split; `labels` are then all for validation. By default `labels` are
    split."""
    classes: str
    """Text file with one class a line, or `imagenet` for the names that open_clip uses."""
    templates: str = "openai"
    """Text file with one prompt a line, each with one `{}`; or open_clip's `openai` (80) or `simple` (7)."""
    synsets: Path | None = None
    """Text file that says what labels or folders mean that are called otherwise than the classes: `n01440764 tench`,
    one a line. ImageNet's own ids need none with `classes: imagenet`."""
    label_column: str | None = None
    """Column of the labels in the CSV; by default `label`, or what else it is often called."""
    val_fraction: float = Field(default=0.5, gt=0, lt=1)
    """Fraction of each class's labelled images that searches are evaluated on; the rest is the test split."""
    split_seed: int = Field(default=0, ge=0)
    """Seed of the split into validation and test images."""
    on_broken: Literal["fail", "skip"] = "fail"
    """What becomes of images that are missing, truncated or none: all are reported and nothing runs; or they are
    skipped and listed in a file. Which are skipped is part of the data's content."""
    max_broken: float = Field(default=0.01, ge=0, le=1)
    """Largest fraction of a list's images that are skipped; if more are broken, nothing runs."""
    jpeg: Literal["exact", "draft"] = "exact"
    """How JPEG files are decoded: `exact`, as open_clip has them; or `draft`: those whose shorter side is four times
    the model's or more at a half, a quarter or an eighth of their size, twice the model's at least. That takes a
    fraction of the time and changes pixels a little, so it is part of the data's content."""
    decode_workers: int | None = Field(default=None, ge=1)
    """Processes that decode images on first use; by default one for each core that this process may use."""

    @model_serializer(mode="wrap")
    def _as_said(self, dump: SerializerFunctionWrapHandler) -> dict[str, JsonValue]:
        """Leave out what came later and is as it was: so the configurations of earlier records are the same."""
        tree: dict[str, JsonValue] = dump(self)
        fields = type(self).model_fields
        same = {name for name in _LATER & fields.keys() if getattr(self, name) == fields[name].default}
        return {name: value for name, value in tree.items() if name not in same}

    def class_names(self) -> Sequence[str]:
        """Return the classes in their order.

        Raises:
            UserError: if they cannot be read, one is empty, or two are equal.
        """
        problems: list[Problem] = []
        names = read_classes(self.classes, problems)
        raise_if_any(problems)
        return names

    def content_key(self) -> str:
        """Return a fingerprint of images, captions, labels, classes and templates, wherever they lie.

        This process remembers it until a list or a shard changes. An image that is overwritten meanwhile is
        noticed by the next process: looking at every image's time for every trial would cost too much.

        Raises:
            UserError: with every mistake in the lists, and every image that is missing.
        """
        return key_of(self, self.stamps())

    def stamps(self) -> tuple[Stamp | None, ...]:
        """Return the stamps of the files that say what the data set consists of."""
        return tuple(stamp_if_there(path) for path in self._described_by())

    @property
    def takes_drafts(self) -> bool:
        """Return whether JPEG files are decoded as drafts."""
        return self.jpeg == "draft"

    @property
    def may_be_kept(self) -> bool:
        """Return whether what the lists say holds as long as no file changes that they name.

        Where broken images are skipped, those that are missing may come without any list being changed.
        """
        return self.only_files and self.on_broken != "skip"

    @abstractmethod
    def compute_key(self) -> str:
        """Return the content key, reading all that it depends on."""

    def read_lists(self) -> Known:
        """Return what the lists say, reading all that the key depends on."""
        return Known(self.compute_key())

    def _described_by(self) -> list[Path]:
        """Return the files that say what the data set consists of."""
        labelled = [self.labels] if self.test_labels is None else [self.labels, self.test_labels]
        folders: list[Path] = []
        with suppress(OSError):  # why it cannot be read is said when it is read
            folders = [folder for whole in labelled if is_folder(whole) for folder in class_folders(whole)]
        return [*labelled, *folders, *self._words()]

    def _words(self) -> list[Path]:
        synsets = [] if self.synsets is None else [self.synsets]
        return [*synsets, *vocabulary_files(self.classes, self.templates)]

    def contents(self) -> Iterator[Entry]:
        """Yield every row of the lists with its image, then the classes, what else they are called, and the prompts."""
        for rows in self._lists(problems=[]):
            yield from entries(rows)
        yield from (line for path in self._words() for line in lines(path))

    def _lists(self, problems: list[Problem]) -> Iterator[list[Row]]:
        """Yield the rows of each list, whether their images are there or not."""
        yield self._listed_images(self.labels, problems)
        if self.test_labels is not None:
            yield self._listed_images(self.test_labels, problems)

    def _listed_images(self, path: Path, problems: list[Problem]) -> list[Row]:
        """Return the images in a folder or a table."""
        if is_folder(path):
            return read_folders(path, problems)
        return read_rows(path, "label", problems, {"label": self.label_column})

    def _evaluation(self, problems: list[Problem]) -> Evaluation:
        """Return the evaluation side of the data set; not to be used if anything was added to `problems`."""
        classes = read_classes(self.classes, problems)
        templates = read_templates(self.templates, problems)
        synsets = read_synsets(self.synsets, self.classes, classes, problems)
        rows, labels, skipped = self._labelled(self.labels, classes, synsets, problems)
        if self.test_labels is not None:
            test_rows, labels_of_test, more = self._labelled(self.test_labels, classes, synsets, problems)
            test_of = (test_rows, labels_of_test, classes, templates)
            return Evaluation(rows, labels, *test_of, skipped + more, self.takes_drafts)
        val, test = stratified_split(labels, self.val_fraction, self.split_seed)
        if rows and not (len(val) and len(test)):
            message = f"{len(rows)} images split into {len(val)} for validation and {len(test)} for the test"
            problems.append(Problem(str(self.labels), message, advice="both need one: see `val_fraction`"))
        val_rows, test_rows = ([rows[at] for at in split] for split in (val, test))
        of_words = (classes, templates, skipped, self.takes_drafts)
        return Evaluation(val_rows, labels[val], test_rows, labels[test], *of_words)

    def _usable(self, rows: list[Row], label: str, problems: list[Problem]) -> list[Row]:
        """Return the rows that are used; adds to `problems` the missing images, or broken ones beyond the limit."""
        if self.on_broken == "skip":
            return without_broken(rows, label, self.decode_workers, self.max_broken, problems)
        report_missing(rows, problems)
        return rows

    def _labelled(
        self, path: Path, classes: Sequence[str], synsets: Mapping[str, int], problems: list[Problem]
    ) -> tuple[list[Row], Labels, int]:
        """Return the images that are used, their labels (0 without classes), and how many were skipped."""
        listed = self._listed_images(path, problems)
        rows = self._usable(listed, "labelled", problems)
        labels = parse_labels(rows, classes, problems, synsets) if classes else np.zeros(len(rows), dtype=np.int64)
        return rows, labels, len(listed) - len(rows)


_INDEX = re.compile(r"-?[0-9]+")


def parse_labels(
    rows: Sequence[Row], classes: Sequence[str], problems: list[Problem], synsets: Mapping[str, int] | None = None
) -> Labels:
    """Return the class index of each row, `[N]` int64; a label is a class name, an index, or one of `synsets`.

    Case, spaces, `_` and the form of its Unicode do not matter in a name. Adds to `problems` every index out of range,
    every unknown name, and names that two classes share.
    """
    others = synsets or {}
    times = Counter(classes)
    positions = {name: index for index, name in enumerate(classes)}
    labels = np.zeros(len(rows), dtype=np.int64)
    unknown: set[str] = set()
    for at, row in enumerate(rows):
        if times[row.text] > 1:
            problems.append(Problem(row.where, "several classes have this name; give the index", row.text))
        elif row.text in positions:
            labels[at] = positions[row.text]
        elif row.text in others:
            labels[at] = others[row.text]
        elif not _INDEX.fullmatch(row.text):
            known = class_index(row.text, classes)
            if known is None and (row.unit or row.text not in unknown):
                unknown.add(row.text)
                # Looking for a similar name takes milliseconds: not for problems that will not be shown.
                advice = nearest_class(row.text, classes) if len(problems) < LISTED else ""
                where = row.where if row.unit else str(row.image.parent)
                problems.append(Problem(where, "unknown class", row.text, advice))
            labels[at] = known or 0
        elif not 0 <= int(row.text) < len(classes):
            message = f"class index out of range; {len(classes)} classes are 0 to {len(classes) - 1}"
            problems.append(Problem(row.where, message, int(row.text)))
        else:
            labels[at] = int(row.text)
    return labels


def stratified_split(labels: Labels, val_fraction: float, seed: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the positions in `labels[N]` of the validation images and those of the test images, both sorted.

    Systematic sampling: images are lined up class by class, classes and images in random order, and every
    (1 / `val_fraction`)-th is taken. So the fraction holds in each class, and over all, to within one image
    — also when classes have but one image each, where rounding class by class would give none.
    """
    rng = numpy_generator(seed, "labels", "split")
    shuffled = rng.permutation(len(labels))
    turn_of_class = rng.permutation(int(labels.max(initial=-1)) + 1)
    line = shuffled[np.argsort(turn_of_class[labels[shuffled]], kind="stable")]
    taken = np.diff(np.floor(np.arange(len(labels) + 1) * val_fraction + 0.5)) > 0
    return np.sort(line[taken]), np.sort(line[~taken])
