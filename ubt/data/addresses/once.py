"""Shards in a cloud decoded while they are read: each is read once, for its digest, its captions and its images."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol

from pydantic import JsonValue

from ubt.common.atomic_files import alone, check_may_make, whole_file, write_whole
from ubt.common.errors import Problem
from ubt.common.hashing import fingerprint
from ubt.common.progress import progress
from ubt.data.addresses.streamed import Finding, Opened, Shard, in_cloud, is_known, opened
from ubt.data.images import Decoders, Encoded, growing_images
from ubt.data.shards import Sample
from ubt.data.tables import raise_if_any, with_advice

EMPTY = "the shards hold no samples"
SMALL_BYTES = 20_000_000
"""Shards of fewer bytes are decoded in this process: starting others takes longer."""


class ReadSamples(Protocol):
    """Yields the samples of shards in order, adding to `problems` the shards that cannot be read."""

    def __call__(self, shards: Iterable[Opened], problems: list[Problem], /) -> Iterator[Sample]: ...  # noqa: D102


@dataclass(frozen=True)
class Asked:
    """What is wanted of which shards."""

    shards: Sequence[Shard]
    read_samples: ReadSamples
    is_deep: Callable[[Opened], bool]
    max_pairs: int | None
    size_px: int
    draft: bool


def read_once(asked: Asked, kept: Callable[[], tuple[Path, Path]], cache: Path, decoders: Decoders) -> None:
    """Keep images and captions of shards, and what is in them, unless all that is there.

    Args:
        asked: the pairs.
        kept: says where images and captions are kept, which depends on what is in the shards: asked once that is known.
        cache: the folder of both files.
        decoders: what decodes.

    Raises:
        UserError: naming every sample that lacks something, or else every image that cannot be decoded.
        NotMadeYet: if they are not there inside `only_what_is_there`.
        OSError: if they cannot be written.
    """

    def are_there() -> bool:
        return is_known(asked.shards) and all(path.is_file() for path in kept())

    if are_there():
        return
    names: list[JsonValue] = [str(shard) for shard in asked.shards]
    of_pairs: list[JsonValue] = [names, asked.max_pairs, asked.draft]
    unnamed = cache / f"images-{fingerprint(of_pairs)}-{asked.size_px}px.npy"
    check_may_make(unnamed)
    cache.mkdir(parents=True, exist_ok=True)
    with alone(unnamed):
        if are_there():
            return
        finding = Finding(in_cloud(asked.shards), asked.is_deep)
        with whole_file(unnamed, lasting=True, called=lambda: kept()[0].name) as unfinished:
            captions = _decode(asked, finding, unfinished, decoders)
            finding.keep()
            write_whole(kept()[1], json.dumps(captions), lasting=True)


def _decode(asked: Asked, finding: Finding, path: Path, decoders: Decoders) -> list[str]:
    """Write the images of the pairs to a file while shards are read; return their captions."""
    captions: list[str] = []
    problems: list[Problem] = []
    broken: list[Problem] = []
    few = sum(shard.size_bytes for shard in in_cloud(asked.shards)) < SMALL_BYTES
    with closing(opened(asked.shards, finding.look_at)) as reading, growing_images(path, asked.size_px) as add:
        coming = progress(reading, len(asked.shards), "decoding shards")

        def encoded() -> Iterator[Encoded]:
            for sample in islice(asked.read_samples(coming, problems), asked.max_pairs):
                problems.extend(Problem(sample.where, trouble) for trouble in sample.troubles)
                captions.append(sample.caption)
                yield Encoded(sample.where, sample.image)

        for result in decoders.decoded(encoded(), asked.size_px, "train", few):
            if isinstance(result, Problem):
                broken.append(result)
            else:
                add(result)
        if not finding.known:
            deque(coming, maxlen=0)  # behind the last pair that is used: the key is of whole shards
    if not captions and not problems:
        problems.append(Problem("victim.data.pairs", EMPTY))
    raise_if_any(problems or with_advice(broken))
    return captions
