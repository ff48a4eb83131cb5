"""Parquet files of pairs: with the images in them, as Hugging Face and img2dataset write them, or with their paths."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from ubt.common.errors import Problem
from ubt.data.addresses.streamed import Opened
from ubt.data.decode import is_deep
from ubt.data.shards import Sample
from ubt.data.tables import Row, find_columns
from ubt.data.webdataset import ShardedPairs

_BATCH = 64
"""Rows in memory at a time."""


class ParquetFiles(ShardedPairs):
    """Training pairs in Parquet files: images as bytes, or as paths of files; evaluation images listed in a CSV."""

    path_fields: ClassVar[tuple[str, ...]] = (*ShardedPairs.path_fields, "images")

    kind: Literal["parquet"] = "parquet"
    label: ClassVar[str] = "Parquet files"
    pairs: str
    """Parquet files, braces give ranges: `/data/cc3m-{0000..0331}.parquet`; those at addresses (http, s3) are fetched
    once. Images are bytes, Hugging Face's images, or paths of files."""
    images: Path | None = None
    """Folder that paths of images are relative to; by default that of each Parquet file."""
    image_column: str | None = None
    """Column of the images; by default `image`, or what else it is often called."""
    caption_column: str | None = None
    """Column of the captions; by default `caption`, or what else it is often called."""

    def read_samples(self, shards: Iterable[Opened], problems: list[Problem]) -> Iterator[Sample]:
        """Yield the rows of Parquet files."""
        for shard in shards:
            assert isinstance(shard, Path), "they are copied"  # noqa: S101 — see `can_stream`
            yield from self._rows(shard, problems)

    def images_beside(self, shards: Sequence[Path], problems: list[Problem]) -> list[Row]:
        """Return the rows of the files whose images are paths."""
        rows = []
        for shard in shards:
            for number, sample in enumerate(self._rows(shard, problems, paths_only=True), start=1):
                if isinstance(sample.image, Path):
                    rows.append(Row(shard, number, str(sample.image), sample.caption))
        return rows

    def is_deep(self, shard: Opened) -> bool:
        """Return whether a Parquet file holds a deep image."""
        assert isinstance(shard, Path), "they are copied"  # noqa: S101
        images = (sample.image for sample in self._rows(shard, problems=[]))
        return any(is_deep(image) for image in images if isinstance(image, bytes))

    def _rows(self, shard: Path, problems: list[Problem], paths_only: bool = False) -> Iterator[Sample]:
        """Yield the rows of a file; of one that holds its images none, if only paths are wanted."""
        from pyarrow import ArrowException  # noqa: PLC0415 — 0.3 s, and few data sets are of this kind
        from pyarrow.parquet import ParquetFile  # noqa: PLC0415

        try:
            with ParquetFile(shard) as file:
                columns = self._columns(str(shard), file.schema_arrow, problems)
                if columns is None or (paths_only and not _is_text(file.schema_arrow.field(columns[0]).type)):
                    return
                number = 0
                for batch in file.iter_batches(_BATCH, columns=columns):
                    for cells in batch.to_pylist():
                        number += 1
                        yield self._sample(shard, number, *(cells[column] for column in columns))
        except (OSError, ValueError, ArrowException) as error:
            problems.append(Problem(str(shard), f"cannot be read: {str(error).partition(chr(10))[0]}"))

    def _columns(self, where: str, schema: Any, problems: list[Problem]) -> list[str] | None:  # noqa: ANN401 — untyped
        """Return the columns of images and captions; None if one is missing or holds something else."""
        from pyarrow import types  # noqa: PLC0415

        chosen = {"image": self.image_column, "caption": self.caption_column}
        before = len(problems)
        found = find_columns(where, schema.names, chosen, problems)
        if found is None or len(problems) > before:
            return None
        image, caption = (schema.names[at] for at in found.wanted)
        kind = schema.field(image).type
        held = kind.field("bytes").type if types.is_struct(kind) and kind.get_field_index("bytes") >= 0 else kind
        if not (_is_text(held) or types.is_binary(held) or types.is_large_binary(held)):
            problems.append(
                Problem(where, f"column `{image}` holds {kind}; needs bytes, Hugging Face's images, or paths")
            )
        if not _is_text(schema.field(caption).type):
            problems.append(Problem(where, f"column `{caption}` holds {schema.field(caption).type}; needs text"))
        return [image, caption] if len(problems) == before else None

    def _sample(self, shard: Path, number: int, image: object, caption: object) -> Sample:
        content: object = image.get("bytes") if isinstance(image, dict) else image
        if isinstance(content, str):
            content = (self.images or shard.parent) / content
        text = str(caption or "").strip()
        troubles = [] if content else ["has no image"]
        troubles += [] if text else ["has no caption"]
        held = content if isinstance(content, bytes | Path) else b""
        return Sample(f"{shard}: row {number}", held, text, tuple(troubles))


def _is_text(kind: Any) -> bool:  # noqa: ANN401 — pyarrow's types are untyped
    from pyarrow import types  # noqa: PLC0415

    held = kind.value_type if types.is_dictionary(kind) else kind
    return bool(types.is_string(held) or types.is_large_string(held))
