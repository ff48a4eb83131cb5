"""Training pairs in shards: what such data sets share, and tar shards as open_clip's users keep them (WebDataset)."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, JsonValue

from ubt.common.atomic_files import made_once
from ubt.common.errors import Problem
from ubt.common.hashing import fingerprint
from ubt.common.progress import progress
from ubt.data.addresses import streamed
from ubt.data.addresses.clouds import CloudFile
from ubt.data.addresses.once import EMPTY, SMALL_BYTES, Asked, read_once
from ubt.data.addresses.streamed import Finding, Opened, Shard, digest_of, in_cloud, is_known, on_disk
from ubt.data.base import DataSet, DataSizes, Images, Labelled, Pairs
from ubt.data.broken import CHECKED_BY, Broken, leave_out, missing_reasons, report_missing
from ubt.data.content.index import Entry
from ubt.data.decode import DEEP_VERSION, DRAFT_VERSION
from ubt.data.digests import FileFacts, Stamp, stamp_if_there
from ubt.data.images import Decoders, Encoded, cached_images, decode_rows, image_cache, image_digest
from ubt.data.labelled import Evaluation, LabelledFiles
from ubt.data.shards import Sample, find_shards, has_deep_images, listed_shards, read_samples
from ubt.data.tables import Row, gather, raise_if_any


@dataclass(frozen=True)
class _Train:
    """The training pairs: where they are, and which of the samples there are none."""

    shards: Sequence[Shard]
    key: str
    skipped: frozenset[int]
    """Positions among all samples."""


class ShardedPairs(LabelledFiles):
    """Training pairs in shards of any kind, evaluation images in files; subclasses read the shards."""

    path_fields: ClassVar[tuple[str, ...]] = (*LabelledFiles.path_fields, "pairs")
    joined_path_fields: ClassVar[tuple[str, ...]] = ("pairs",)

    can_stream: ClassVar[bool] = False
    """Shards in a cloud are read from there whenever they are wanted, where that is once; else they are copied."""

    kind: str
    """Which kind is meant."""
    pairs: str
    """The shards."""
    max_pairs: int | None = Field(default=None, ge=1)
    """How many pairs to use, from the first; by default all."""

    @abstractmethod
    def read_samples(self, shards: Iterable[Opened], problems: list[Problem]) -> Iterator[Sample]:
        """Yield the samples of shards in order, adding to `problems` the shards that cannot be read."""

    @abstractmethod
    def is_deep(self, shard: Opened) -> bool:
        """Return whether a shard holds a deep image (see `ubt.data.decode.is_deep`)."""

    def images_beside(self, shards: Sequence[Path], problems: list[Problem]) -> list[Row]:
        """Return the samples whose images are files beside the shards, adding to `problems` what cannot be read."""
        return []

    def compute_key(self) -> str:
        """Return the content key; shards are read as files, their samples are looked at only for their depth.

        With `on_broken: skip` every image is decoded once, and it is remembered which are broken.

        Raises:
            UserError: if shards are missing, with every mistake in the lists.
        """
        shards, evaluation = self._listed()
        train = self._train(shards)
        return fingerprint({"kind": self.kind, "train": train.key, **evaluation.content(evaluation.digests())})

    def sizes(self, cache: Path) -> DataSizes | None:
        """Return what was counted when the shards were decoded; None before: counting reads them all.

        Raises:
            UserError: as `compute_key`.
        """
        shards, labelled = self._listed()
        if not is_known(shards):
            return None
        train = self._train(shards)
        kept = _captions_file(cache, train)
        if not kept.is_file():
            return None
        captions: list[str] = json.loads(kept.read_text())
        return DataSizes(
            train=len(captions),
            captions=len(set(captions)),
            val=len(labelled.val),
            test=len(labelled.test),
            classes=len(labelled.classes),
            templates=len(labelled.templates),
        )

    def load(self, image_size_px: int, cache: Path) -> DataSet:
        """Return the data set, decoding its images into `cache` on first use.

        Raises:
            UserError: naming shard and key of every sample without image or caption, and every image that
                cannot be decoded; with every mistake in the lists.
        """
        shards, evaluation = self._listed()
        problems: list[Problem] = []
        splits = {"val": evaluation.val, "test": evaluation.test}
        with Decoders(self.decode_workers, self.takes_drafts) as decoders:
            images = decode_rows(splits, evaluation.digests(), image_size_px, cache, decoders, problems)
            with gather(problems):
                train, captions, images["train"] = self._pairs(shards, image_size_px, cache, decoders)
        raise_if_any(problems)
        skipped = {"pairs": len(train.skipped), "labels": evaluation.skipped}
        return DataSet(
            train=Pairs(images["train"], captions, skipped=len(train.skipped)),
            val=Labelled(images["val"], evaluation.val_labels),
            test=Labelled(images["test"], evaluation.test_labels),
            classes=evaluation.classes,
            templates=evaluation.templates,
            skipped={name: count for name, count in skipped.items() if count},
        )

    def _pairs(
        self, shards: Sequence[Shard], size_px: int, cache: Path, decoders: Decoders
    ) -> tuple[_Train, list[str], Images]:
        """Return the training pairs with their captions and images, decoding them on first use."""

        def kept() -> tuple[Path, Path]:
            of_pairs = self._train(shards)
            return image_cache(cache, of_pairs.key, size_px), _captions_file(cache, of_pairs)

        if in_cloud(shards):
            asked = Asked(shards, self.read_samples, self.is_deep, self.max_pairs, size_px, self.takes_drafts)
            read_once(asked, kept, cache, decoders)
        train = self._train(shards)
        captions = self._captions(train, cache)
        return train, captions, self._train_images(train, len(captions), size_px, cache, decoders)

    def stamps(self) -> tuple[Stamp | None, ...]:
        """Return the stamps of the files that say what the data set consists of; of a cloud what it says of them."""
        found = self._find([])
        shards = [shard.stamp if isinstance(shard, CloudFile) else stamp_if_there(shard) for shard in found]
        return (*shards, *super().stamps())

    def shared_facts(self) -> Path | None:
        """Return what is known of shards in a cloud; None if there are none."""
        remote = in_cloud(self._find([]))
        return streamed.content_file(remote) if remote else None

    def contents(self) -> Iterator[Entry]:
        """Yield every shard, then what `LabelledFiles` has."""
        yield from streamed.shard_entries(listed_shards(self.pairs), in_cloud(self._find([])))
        yield from super().contents()

    def _lists(self, problems: list[Problem]) -> Iterator[list[Row]]:
        yield self.images_beside(on_disk(self._find(problems)), problems)[: self.max_pairs]
        yield from super()._lists(problems)

    def _find(self, problems: list[Problem]) -> list[Shard]:
        # Of broken ones it is found out which they are before anything is decoded: that reads them more than once.
        return find_shards(self.pairs, problems, streamed=self.can_stream and self.on_broken == "fail")

    def _listed(self) -> tuple[list[Shard], Evaluation]:
        problems: list[Problem] = []
        shards = self._find(problems)
        evaluation = self._evaluation(problems)
        raise_if_any(problems)
        return shards, evaluation

    def _train(self, shards: Sequence[Shard]) -> _Train:
        digest, deep = digest_of(shards, self.is_deep)
        content: list[JsonValue] = [digest, self.max_pairs]
        if deep:
            content.append(DEEP_VERSION)
        problems: list[Problem] = []
        files = on_disk(shards)
        beside = self.images_beside(files, problems)[: self.max_pairs]
        if self.on_broken == "skip":
            beside = [row for row, reason in zip(beside, missing_reasons(beside), strict=True) if not reason]
        else:
            report_missing(beside, problems)
        raise_if_any(problems)
        if beside:
            content.append(image_digest(beside, "train"))
        if self.takes_drafts:
            content.append({"draft": DRAFT_VERSION})
        skipped = self._skipped(files, [row.image for row in beside]) if self.on_broken == "skip" else ()
        if skipped:
            content.append({"skipped": [*skipped]})
        return _Train(shards, fingerprint(content), frozenset(skipped))

    def _skipped(self, shards: Sequence[Path], beside: Sequence[Path]) -> Sequence[int]:
        """Return the positions of the samples that are broken.

        Raises:
            UserError: if they are more than `max_broken` allows, or a shard cannot be read.
        """
        facts = FileFacts([*shards, *beside], "shards")
        total, *found = facts.texts(f"broken of {self.max_pairs} ({CHECKED_BY})", lambda: self._check(shards))
        positions, broken = [], []
        for position, where, reason in map(json.loads, found):
            positions.append(int(position))
            broken.append(Broken(where, reason))
        problems: list[Problem] = []
        if broken:
            leave_out(broken, int(total), self.pairs, self.max_broken, problems, "pairs")
        raise_if_any(problems)
        return positions

    def _check(self, shards: Sequence[Path]) -> list[str]:
        """Return the number of samples; and of each that is broken its position, place and reason, as JSON."""
        problems: list[Problem] = []
        seen: list[tuple[str, str]] = []

        def encoded() -> Iterator[Encoded]:
            for shard in progress(shards, len(shards), "checking pairs"):
                for sample in self.read_samples([shard], problems):
                    seen.append((sample.where, "; ".join(sample.troubles)))
                    yield Encoded(sample.where, sample.image)

        few = sum(shard.stat().st_size for shard in shards) < SMALL_BYTES
        with Decoders(self.decode_workers) as decoders:
            reasons = list(decoders.broken_reasons(islice(encoded(), self.max_pairs), "checking pairs", few))
        raise_if_any(problems)
        broken = [
            json.dumps([position, where, trouble or f"the image cannot be decoded: {reason}"])
            for position, ((where, trouble), reason) in enumerate(zip(seen, reasons, strict=True))
            if trouble or reason
        ]
        return [str(len(reasons)), *broken]

    def _samples(self, train: _Train, problems: list[Problem]) -> Iterator[Sample]:
        """Yield the samples that are used, adding to `problems` those among them that are no pairs."""
        finding = Finding(in_cloud(train.shards), self.is_deep)
        shards = streamed.opened(train.shards, finding.look_at)
        for position, sample in enumerate(islice(self.read_samples(shards, problems), self.max_pairs)):
            if position not in train.skipped:
                problems.extend(Problem(sample.where, trouble) for trouble in sample.troubles)
                yield sample

    def _captions(self, train: _Train, cache: Path) -> list[str]:
        """Return all captions, kept beside the images: without them every worker would read every shard."""

        def write(unfinished: Path) -> None:
            unfinished.write_text(json.dumps(self._read_captions(train)))

        path = made_once(_captions_file(cache, train), write)
        kept: list[str] = json.loads(path.read_text())
        return kept

    def _read_captions(self, train: _Train) -> list[str]:
        problems: list[Problem] = []
        captions = [sample.caption for sample in self._samples(train, problems)]
        if not captions and not problems:
            problems.append(Problem(self.pairs, EMPTY))
        raise_if_any(problems)
        return captions

    def _train_images(self, train: _Train, count: int, size_px: int, cache: Path, decoders: Decoders) -> Images:
        def fill(images: Images) -> None:
            encoded = (Encoded(sample.where, sample.image) for sample in self._samples(train, problems=[]))
            decoders.decode_into(images, encoded, "train")

        return cached_images(image_cache(cache, train.key, size_px), count, size_px, fill)


def _captions_file(cache: Path, train: _Train) -> Path:
    return cache / f"captions-{train.key}.json"


class WebDataset(ShardedPairs):
    """Training pairs in tar shards (`key.jpg`, `key.txt`); evaluation images listed in a CSV."""

    kind: Literal["webdataset"] = "webdataset"
    label: ClassVar[str] = "WebDataset shards"
    pairs: str
    """Tar files, braces give ranges: `/data/cc3m-{0000..0331}.tar`; those in a cloud (s3) are decoded as they are read,
    those on the web (http) are fetched once."""

    can_stream: ClassVar[bool] = True

    def read_samples(self, shards: Iterable[Opened], problems: list[Problem]) -> Iterator[Sample]:
        """Yield the samples of tar files."""
        return read_samples(shards, problems)

    def is_deep(self, shard: Opened) -> bool:
        """Return whether a tar file holds a deep image."""
        return has_deep_images(shard)
