"""The table of data sources: one row each. A new kind is one file and one row here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Union

from pydantic import Field

from ubt.data.base import DataSource
from ubt.data.csv import CsvFiles
from ubt.data.scenes import Scenes
from ubt.data.webdataset import WebDataset

SOURCES: tuple[type[DataSource], ...] = (Scenes, CsvFiles, WebDataset)

if TYPE_CHECKING:
    DataConfig = DataSource
else:
    DataConfig = Annotated[Union[SOURCES], Field(discriminator="kind")]  # noqa: UP007 — built from the table
