"""Tar shards in the WebDataset layout, as open_clip's users keep their training pairs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, JsonValue

from ubt.common.atomic_files import made_once
from ubt.common.errors import Problem, UserError
from ubt.common.hashing import fingerprint
from ubt.data.base import DataSet, Images, Labelled, Pairs
from ubt.data.decode import DEEP_VERSION
from ubt.data.digests import FileFacts
from ubt.data.images import Decoders, Encoded, cached_images
from ubt.data.labelled import Evaluation, LabelledFiles, decode_rows, image_cache
from ubt.data.shards import Sample, find_shards, has_deep_images, read_samples
from ubt.data.tables import gather, raise_if_any


class WebDataset(LabelledFiles):
    """Training pairs in tar shards (`key.jpg`, `key.txt`); evaluation images listed in a CSV."""

    path_fields: ClassVar[tuple[str, ...]] = (*LabelledFiles.path_fields, "pairs")
    joined_path_fields: ClassVar[tuple[str, ...]] = ("pairs",)

    kind: Literal["webdataset"] = "webdataset"
    label: ClassVar[str] = "WebDataset shards"
    pairs: str
    """Tar files, braces give ranges: `/data/cc3m-{0000..0331}.tar`; http(s) addresses are fetched once."""
    max_pairs: int | None = Field(default=None, ge=1)
    """How many pairs to use, from the first; by default all."""

    def compute_key(self) -> str:
        """Return the content key; shards are read as files, their samples are not looked at.

        Raises:
            UserError: if shards are missing, with every mistake in the lists.
        """
        shards, evaluation = self._read()
        return fingerprint({"kind": self.kind, "train": self._train_key(shards), **evaluation.content()})

    def load(self, image_size_px: int, cache: Path) -> DataSet:
        """Return the data set, decoding its images into `cache` on first use.

        Raises:
            UserError: naming shard and key of every sample without image or caption, and every image that
                cannot be decoded; with every mistake in the lists.
        """
        shards, evaluation = self._read()
        problems: list[Problem] = []
        splits = {"val": evaluation.val, "test": evaluation.test}
        with Decoders(self.decode_workers) as decoders:
            images = decode_rows(splits, image_size_px, cache, decoders, problems)
            with gather(problems):
                captions = self._captions(shards, cache)
                images["train"] = self._train_images(shards, len(captions), image_size_px, cache, decoders)
        raise_if_any(problems)
        return DataSet(
            train=Pairs(images["train"], captions),
            val=Labelled(images["val"], evaluation.val_labels),
            test=Labelled(images["test"], evaluation.test_labels),
            classes=evaluation.classes,
            templates=evaluation.templates,
        )

    def _described_by(self) -> list[Path]:
        return [*find_shards(self.pairs, problems=[]), *super()._described_by()]

    def _read(self) -> tuple[list[Path], Evaluation]:
        problems: list[Problem] = []
        shards = find_shards(self.pairs, problems)
        evaluation = self._evaluation(problems)
        raise_if_any(problems)
        return shards, evaluation

    def _train_key(self, shards: Sequence[Path]) -> str:
        facts = FileFacts(shards, "shards")
        content: list[JsonValue] = [facts.digest(), self.max_pairs]
        return fingerprint([*content, DEEP_VERSION] if facts.any("deep", has_deep_images) else content)

    def _samples(self, shards: Sequence[Path], problems: list[Problem]) -> Iterator[Sample]:
        return islice(read_samples(shards, problems), self.max_pairs)

    def _captions(self, shards: Sequence[Path], cache: Path) -> list[str]:
        """Return all captions, kept beside the images: without them every worker would read every shard."""

        def write(unfinished: Path) -> None:
            unfinished.write_text(json.dumps(self._read_captions(shards)))

        path = made_once(cache / f"captions-{self._train_key(shards)}.json", write)
        kept: list[str] = json.loads(path.read_text())
        return kept

    def _read_captions(self, shards: Sequence[Path]) -> list[str]:
        problems: list[Problem] = []
        captions = [sample.caption for sample in self._samples(shards, problems)]
        if not captions and not problems:
            problems.append(Problem(self.pairs, "the shards hold no samples"))
        if problems:
            raise UserError(problems)
        return captions

    def _train_images(
        self, shards: Sequence[Path], count: int, size_px: int, cache: Path, decoders: Decoders
    ) -> Images:
        def fill(images: Images) -> None:
            samples = self._samples(shards, problems=[])
            encoded = (Encoded(sample.where, sample.image) for sample in samples)
            decoders.decode_into(images, encoded, "train")

        path = image_cache(cache, self._train_key(shards), size_px)
        return cached_images(path, count, size_px, fill)
