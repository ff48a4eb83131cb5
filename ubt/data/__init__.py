"""Data sets: generated scenes, image files listed in CSV or JSON, shards of tar or Parquet. Loads no torch.

A new kind is a class in a file here and a name in `DATA_SOURCES.add`; one of another distribution an entry point in the
group `ubt.data`.
"""

from __future__ import annotations

from typing import Annotated

from ubt.common.hashing import fingerprint
from ubt.common.registry import Registry
from ubt.config.base import ByKind, kind_of
from ubt.data.base import DataSource
from ubt.data.coco import CocoCaptions
from ubt.data.csv import CsvFiles
from ubt.data.parquet import ParquetFiles
from ubt.data.scenes import Scenes
from ubt.data.webdataset import WebDataset

DATA_SOURCES: Registry[type[DataSource]] = Registry("data source", "ubt.data", kind_of, __name__, DataSource)
DATA_SOURCES.add(Scenes, CsvFiles, CocoCaptions, WebDataset, ParquetFiles)

DataConfig = Annotated[DataSource, ByKind(DATA_SOURCES)]
"""A data set as configured, of any kind that is registered."""


def content_key(source: DataSource) -> str:
    """Return the fingerprint of a data source's content, and of the plug-in that reads it if one does.

    Raises:
        UserError: if the data cannot be read.
    """
    key = source.content_key()
    origin = DATA_SOURCES.origin(kind_of(type(source)))
    return fingerprint([key, dict(origin.as_json())]) if origin else key


__all__ = ["DATA_SOURCES", "DataConfig", "DataSource", "content_key"]
