"""COCO's captions: a JSON file with `images` and `annotations`, as `captions_train2017.json`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import BaseModel, Field, ValidationError

from ubt.common.errors import Problem
from ubt.data.csv import PairFiles
from ubt.data.tables import Row


class _Image(BaseModel):
    id: int | str
    file_name: str = Field(min_length=1)


class _Annotation(BaseModel):
    image_id: int | str
    caption: str


class _Captions(BaseModel):
    images: list[_Image]
    annotations: list[_Annotation]


class CocoCaptions(PairFiles):
    """Image files on disk, with captions in JSON files as COCO's: a pair for each caption of an image."""

    kind: Literal["coco"] = "coco"
    label: ClassVar[str] = "COCO captions"
    pairs: Path
    """JSON with `images` (`id`, `file_name`) and `annotations` (`image_id`, `caption`): what the attack poisons."""
    pretrain: Path | None = None
    """The same for clean pairs, for victims that are trained from nothing."""
    images: Path | None = None
    """Folder of the images, such as `train2017`; by default the JSON file's own."""
    captions_per_image: int | None = Field(default=None, ge=1)
    """How many captions of each image are used, from the first; by default all. Each is a pair of its own."""

    def read_pairs(self, path: Path, problems: list[Problem]) -> list[Row]:
        """Return a row for every caption, in the order of the annotations."""
        try:
            content = _Captions.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            problems.append(Problem(str(path), _reason(error), advice="it must be a JSON file of COCO's captions"))
            return []
        folder = self.images or path.parent
        files = {image.id: image.file_name for image in content.images}
        rows, used = [], Counter[int | str]()
        for number, annotation in enumerate(content.annotations, start=1):
            file, caption = files.get(annotation.image_id), annotation.caption.strip()
            where = f"{path}: annotation {number}"
            if file is None:
                problems.append(Problem(where, "is of no image in the file", annotation.image_id))
            elif not caption:
                problems.append(Problem(where, "caption must not be empty"))
            elif self.captions_per_image is None or used[annotation.image_id] < self.captions_per_image:
                used[annotation.image_id] += 1
                rows.append(Row(path, number, str(folder / file), caption, "annotation"))
        for image, times in Counter(image.id for image in content.images).items():
            if times > 1:
                problems.append(Problem(str(path), f"has {times} images of this id", image))
        if not rows and not problems:
            problems.append(Problem(str(path), "has no captions"))
        return rows


def _reason(error: OSError | ValidationError) -> str:
    if isinstance(error, OSError):
        return f"cannot be read: {error.strerror or error}"
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"is not of that form: {place + ': ' if place else ''}{first['msg']}"
