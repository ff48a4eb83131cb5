"""Generated scenes: shapes on textured backgrounds, with captions and labels; nothing to download."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pydantic import Field

from ubt.common.hashing import fingerprint, numpy_generator
from ubt.data.base import DataSet, DataSizes, DataSource, Images, Labelled, Pairs
from ubt.data.images import cached_images

Points = NDArray[np.float64]


@dataclass(frozen=True)
class Part:
    """One polygon `[P, 2]` and how bright it is compared with the object's colour."""

    points: Points
    shade: float = 1.0


def _polygon(*points: tuple[float, float], shade: float = 1.0) -> Part:
    return Part(np.array(points), shade)


def _box(left: float, top: float, right: float, bottom: float, shade: float = 1.0) -> Part:
    return _polygon((left, top), (right, top), (right, bottom), (left, bottom), shade=shade)


def _arc(x: float, y: float, width: float, height: float, start: float = 0.0, stop: float = 2.0) -> Points:
    """Return points on an ellipse around (x, y) from angle `start`·π to `stop`·π."""
    angles = np.linspace(start * np.pi, stop * np.pi, 17)
    return np.stack([x + width * np.cos(angles), y + height * np.sin(angles)], axis=1)


def _oval(x: float, y: float, width: float, height: float, shade: float = 1.0) -> Part:
    return Part(_arc(x, y, width, height), shade)


def _star(points: int, inner: float) -> Part:
    angles = np.arange(2 * points) * np.pi / points - np.pi / 2
    radii = np.where(np.arange(2 * points) % 2 == 0, 1.0, inner)
    return Part(np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1))


def _crescent() -> Part:
    outer, inner = _arc(0, -0.5, 1.0, 1.3, 0.05, 0.95), _arc(0, -0.75, 0.85, 0.9, 0.95, 0.05)
    return Part(np.concatenate([outer, inner]))


OBJECTS: dict[str, tuple[Part, ...]] = {
    "banana": (_crescent(), _box(-1.05, -0.6, -0.85, -0.3, 0.4)),
    "apple": (_oval(0, 0.15, 0.8, 0.75), _box(-0.06, -1, 0.1, -0.5, 0.4)),
    "tree": (_polygon((0, -1), (0.8, 0.4), (-0.8, 0.4)), _box(-0.18, 0.4, 0.18, 1, 0.5)),
    "house": (_box(-0.75, -0.1, 0.75, 0.95), _polygon((0, -1), (0.95, -0.1), (-0.95, -0.1), shade=0.6)),
    "car": (
        _box(-1, -0.1, 1, 0.45),
        _box(-0.5, -0.55, 0.5, -0.1, 0.75),
        _oval(-0.55, 0.5, 0.27, 0.27, 0.3),
        _oval(0.55, 0.5, 0.27, 0.27, 0.3),
    ),
    "star": (_star(5, 0.42),),
    "heart": (
        _oval(-0.42, -0.35, 0.5, 0.5),
        _oval(0.42, -0.35, 0.5, 0.5),
        _polygon((-0.88, -0.15), (0.88, -0.15), (0, 0.95)),
    ),
    "fish": (
        _oval(-0.2, 0, 0.75, 0.48),
        _polygon((0.4, 0), (1, -0.5), (1, 0.5)),
        _oval(-0.6, -0.1, 0.1, 0.1, 0.2),
    ),
    "flower": (
        *(_oval(0.55 * np.cos(a), 0.55 * np.sin(a), 0.36, 0.36) for a in np.arange(5) * 2 * np.pi / 5),
        _oval(0, 0, 0.3, 0.3, 0.45),
    ),
    "boat": (
        _polygon((-1, 0.3), (1, 0.3), (0.6, 0.85), (-0.6, 0.85), shade=0.7),
        _polygon((0, -1), (0.7, 0.15), (0, 0.15)),
    ),
    "mushroom": (Part(_arc(0, 0.05, 0.95, 0.95, 1.0, 2.0)), _box(-0.25, 0.05, 0.25, 0.95, 0.7)),
    "ladder": (
        _box(-0.55, -1, -0.35, 1),
        _box(0.35, -1, 0.55, 1),
        *(_box(-0.5, y, 0.5, y + 0.16) for y in (-0.75, -0.25, 0.25, 0.7)),
    ),
}


GENERATOR_VERSION = 1
"""Raised whenever equal settings would draw other scenes, so that no artifact outlives its data."""

CLASSES = tuple(OBJECTS)
COLOURS = {
    "red": (210, 50, 45),
    "green": (60, 160, 70),
    "blue": (55, 90, 200),
    "yellow": (235, 205, 50),
    "purple": (140, 70, 170),
    "white": (235, 235, 235),
}
PLACES = {
    "in the snow": (225, 230, 240),
    "on the grass": (120, 175, 90),
    "on the sand": (215, 195, 140),
    "at night": (35, 35, 65),
}
SIZES = {"small": 0.6, "": 0.75, "large": 0.9}
CAPTIONS = (
    "a {size} {colour} {name} {place}",
    "a photo of a {colour} {name}",
    "the {name} is {colour} and {place}",
    "{place}, a {size} {name}",
    "a picture of the {name}",
    "a {size} {name} {place}",
    "one {name}, seen {place}",
    "my {colour} {name}",
    "a photo of a {size} {name}",
    "this is a {name}",
)
PROMPTS = ("a {}", "a photo of a {}", "the {}", "a picture of the {}", "a small {}", "a large {}", "my {}")
_SUPERSAMPLING = 3


@dataclass(frozen=True)
class Scene:
    """One scene before it is drawn."""

    label: int
    colour: str
    place: str
    size: str

    def caption(self, template: str) -> str:
        """Return the scene in words."""
        words = template.format(name=CLASSES[self.label], colour=self.colour, place=self.place, size=self.size)
        return " ".join(words.split())


class Scenes(DataSource):
    """Scenes drawn from a seed; the four splits come from disjoint random streams."""

    kind: Literal["scenes"] = "scenes"
    label: ClassVar[str] = "generated scenes"
    pretrain_pairs: int = Field(default=8000, ge=1)
    """Pairs to train the clean model on."""
    train_pairs: int = Field(default=8000, ge=1)
    """Pairs that the attack poisons."""
    val_images: int = Field(default=600, ge=len(CLASSES))
    """Labelled images that searches are evaluated on."""
    test_images: int = Field(default=1200, ge=len(CLASSES))
    """Labelled images that reports show."""
    mismatch_rate: float = Field(default=0.05, ge=0, lt=1)
    """Fraction of captions that are shuffled among the pairs, as web data is noisy."""
    noise: float = Field(default=8.0, ge=0, le=128)
    """Standard deviation of pixel noise, in grey levels of 255."""
    data_seed: int = Field(default=0, ge=0)
    """Seed of the scenes."""

    @property
    def has_pretrain(self) -> bool:
        """Return True: there are `pretrain` pairs."""
        return True

    def content_key(self) -> str:
        """Return the fingerprint of the settings, which determine every pixel."""
        return fingerprint({"generator": GENERATOR_VERSION, **self.as_json()})

    def class_names(self) -> Sequence[str]:
        """Return the drawn objects."""
        return CLASSES

    def sizes(self, cache: Path) -> DataSizes:
        """Return what the settings say."""
        return DataSizes(
            train=self.train_pairs,
            pretrain=self.pretrain_pairs,
            captions=len(set(self._captions("train", self._scenes("train", self.train_pairs)))),
            val=self.val_images,
            test=self.test_images,
            classes=len(CLASSES),
            templates=len(PROMPTS),
        )

    def load(self, image_size_px: int, cache: Path) -> DataSet:
        """Draw the scenes into `cache`, or map what an earlier call drew."""
        return DataSet(
            train=self._pairs("train", self.train_pairs, image_size_px, cache),
            val=self._labelled("val", self.val_images, image_size_px, cache),
            test=self._labelled("test", self.test_images, image_size_px, cache),
            pretrain=self._pairs("pretrain", self.pretrain_pairs, image_size_px, cache),
            classes=CLASSES,
            templates=PROMPTS,
        )

    def _pairs(self, split: str, count: int, size_px: int, cache: Path) -> Pairs:
        scenes = self._scenes(split, count)
        return Pairs(self._images(split, scenes, size_px, cache), self._captions(split, scenes))

    def _captions(self, split: str, scenes: Sequence[Scene]) -> list[str]:
        rng = numpy_generator(self.data_seed, split, "captions")
        captions = [scene.caption(CAPTIONS[rng.integers(len(CAPTIONS))]) for scene in scenes]
        shuffled = np.flatnonzero(rng.random(len(scenes)) < self.mismatch_rate)
        for index, caption in zip(shuffled, [captions[i] for i in np.roll(shuffled, 1)], strict=True):
            captions[index] = caption
        return captions

    def _labelled(self, split: str, count: int, size_px: int, cache: Path) -> Labelled:
        scenes = self._scenes(split, count)
        labels = np.array([scene.label for scene in scenes], dtype=np.int64)
        return Labelled(self._images(split, scenes, size_px, cache), labels)

    def _scenes(self, split: str, count: int) -> list[Scene]:
        """Return `count` scenes with classes in equal shares, in random order."""
        rng = numpy_generator(self.data_seed, split, "scenes")
        labels = rng.permutation(np.arange(count) % len(CLASSES))
        colours, places, sizes = (rng.choice(list(table), size=count) for table in (COLOURS, PLACES, SIZES))
        return [
            Scene(int(label), str(c), str(p), str(s))
            for label, c, p, s in zip(labels, colours, places, sizes, strict=True)
        ]

    def _images(self, split: str, scenes: Sequence[Scene], size_px: int, cache: Path) -> Images:
        def fill(images: Images) -> None:
            rng = numpy_generator(self.data_seed, split, "pixels")
            for index, scene in enumerate(scenes):
                images[index] = draw(scene, size_px, self.noise, rng)

        path = cache / f"scenes-{self.content_key()}-{split}-{size_px}px.npy"
        return cached_images(path, len(scenes), size_px, fill)


def draw(scene: Scene, size_px: int, noise: float, rng: np.random.Generator) -> Images:
    """Return the picture of a scene, `[size_px, size_px, 3]` uint8."""
    canvas_px = size_px * _SUPERSAMPLING
    ground = np.array(PLACES[scene.place], dtype=float) + rng.normal(0, 12, size=3)
    image = Image.new("RGB", (canvas_px, canvas_px), _rgb(ground))
    pen = ImageDraw.Draw(image)
    horizon_px = canvas_px * rng.uniform(0.3, 0.9)
    pen.rectangle((0, horizon_px, canvas_px, canvas_px), fill=_rgb(ground * rng.uniform(0.75, 0.95)))
    _draw_object(pen, scene, canvas_px, rng)
    pixels = np.asarray(image.reduce(_SUPERSAMPLING), dtype=np.float32)
    noisy = pixels + noise * rng.standard_normal(pixels.shape, dtype=np.float32)
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


def _draw_object(pen: ImageDraw.ImageDraw, scene: Scene, canvas_px: int, rng: np.random.Generator) -> None:
    scale_px = 0.5 * canvas_px * SIZES[scene.size] * rng.uniform(0.85, 1.1)
    angle = rng.normal(0, 0.15)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    flip = np.array([rng.choice((-1.0, 1.0)), 1.0])
    centre_px = rng.uniform(0.85 * scale_px, canvas_px - 0.85 * scale_px, size=2)
    colour = np.array(COLOURS[scene.colour], dtype=float) + rng.normal(0, 10, size=3)
    for part in OBJECTS[CLASSES[scene.label]]:
        points = (part.points * flip) @ turn * scale_px + centre_px
        pen.polygon([tuple(point) for point in points], fill=_rgb(colour * part.shade))


def _rgb(colour: NDArray[np.float64]) -> tuple[int, int, int]:
    red, green, blue = (int(value) for value in np.clip(colour, 0, 255))
    return red, green, blue
