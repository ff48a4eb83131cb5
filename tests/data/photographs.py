"""A small data set in files, valid until a test spoils it."""

from __future__ import annotations

import csv
import io
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ubt.data.csv import CsvFiles

CLASSES = ("cat", "dog", "bird")


def photo(seed: int, size: tuple[int, int] = (40, 32), kind: str = "PNG") -> bytes:
    """Return the bytes of an image file that no other seed gives."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(stream, kind)
    return stream.getvalue()


def write_table(path: Path, *rows: Iterable[object]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows(rows)
    return path


def write_shard(path: Path, members: Mapping[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return path


@dataclass(frozen=True)
class Photos:
    """12 captioned and 12 labelled photographs, four of each class."""

    folder: Path

    @property
    def settings(self) -> dict[str, object]:
        return {"labels": self.folder / "labels.csv", "classes": str(self.folder / "classes.txt")}

    def source(self, **changes: object) -> CsvFiles:
        return CsvFiles.model_validate({"pairs": self.folder / "pairs.csv", **self.settings, **changes})

    def write(self) -> Photos:
        (self.folder / "images").mkdir(parents=True)
        for seed in range(24):
            (self.folder / f"images/{seed}.png").write_bytes(photo(seed))
        captions = [[f"images/{seed}.png", f"a photo, number {seed}"] for seed in range(12)]
        labels = [[f"images/{seed}.png", seed % 3] for seed in range(12, 24)]
        write_table(self.folder / "pairs.csv", ["image", "caption"], *captions)
        write_table(self.folder / "labels.csv", ["image", "label"], *labels)
        (self.folder / "classes.txt").write_text("\n".join(CLASSES) + "\n")
        return self
