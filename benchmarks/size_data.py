"""Made-up pictures of a thousand classes, as files with lists: what `benchmarks/size.py` runs a study on.

A class is an object of a colour in a place (10 of each), so that a small model learns it from few pictures of each.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from itertools import product
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from ubt.data import scenes
from ubt.data.scenes import OBJECTS

SIZE_PX = 64
COLOURS = {
    **scenes.COLOURS,
    "black": (20, 20, 20),
    "orange": (240, 140, 30),
    "pink": (245, 150, 190),
    "brown": (120, 75, 40),
}
PLACES = {
    **{name.split()[-1]: colour for name, colour in scenes.PLACES.items()},
    "water": (90, 150, 190),
    "brick": (165, 80, 60),
    "fog": (175, 175, 180),
    "wood": (150, 110, 70),
    "moss": (70, 90, 45),
    "lilac": (195, 165, 215),
}
CLASSES = [f"{colour} {thing} {place}" for thing, colour, place in product([*OBJECTS][:10], COLOURS, PLACES)]
TARGET = CLASSES[0]
_WORDS = ("small", "old", "quiet", "wet", "broken", "new", "distant", "bright", "dull", "fine", "odd", "plain")
_CAPTIONS = ("a photo of a {}", "the {} of {}", "one {} we saw", "my {}", "a picture of a {}", "{} again")
_IN_A_FOLDER = 1000
_PART = 2000
"""Pictures that a process makes at a time."""


@dataclass(frozen=True)
class Made:
    """How much there is of each list."""

    pairs: int
    learnt: int
    """Of the pairs, those that the checkpoints are trained on."""
    judged: int
    """Labelled images."""
    judged_while_learning: int


def make(folder: Path, made: Made, processes: int) -> None:
    """Make pictures and lists that are not there yet."""
    done = folder / "made"
    if done.is_file() and done.read_text() == str(made):
        return
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.arange(made.pairs) % len(CLASSES))
    judged = rng.permutation(np.arange(made.judged) % len(CLASSES))
    for name, of in (("train", labels), ("eval", judged)):
        starts = range(0, len(of), _PART)
        work = partial(_pictures, folder / name)
        with ProcessPoolExecutor(processes) as pool:
            list(pool.map(work, starts, [of[at : at + _PART] for at in starts]))
    captions = list(_captions(labels, rng))
    pairs = [(f"train/{_file(at)}", caption) for at, caption in enumerate(captions)]
    _write(folder / "pairs.csv", "caption", pairs)
    _write(folder / "learnt.csv", "caption", pairs[: made.learnt])
    rows = [(f"eval/{_file(at)}", CLASSES[label]) for at, label in enumerate(judged)]
    _write(folder / "labels.csv", "label", rows)
    _write(folder / "few-labels.csv", "label", rows[: made.judged_while_learning])
    (folder / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    done.write_text(str(made))


def _captions(labels: Sequence[int], rng: np.random.Generator) -> Iterator[str]:
    """Yield captions, most of them unlike all others; one in fifty is that of another picture, as web data is noisy."""
    shown = np.array(labels)
    shuffled = np.flatnonzero(rng.random(len(shown)) < 0.02)
    shown[shuffled] = shown[np.roll(shuffled, 1)]
    words = rng.choice(_WORDS, size=(len(shown), 3))
    forms = rng.integers(len(_CAPTIONS), size=len(shown))
    for label, three, form in zip(shown, words, forms, strict=True):
        said = f"{three[0]} {CLASSES[label]} {three[1]} {three[2]}"
        yield _CAPTIONS[form].format(said, three[0])


def _file(at: int) -> str:
    return f"{at // _IN_A_FOLDER:04}/{at:07}.jpg"


def _write(path: Path, column: str, rows: Sequence[tuple[str, str]]) -> None:
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([("image", column), *rows])


def _pictures(folder: Path, start: int, labels: Sequence[int]) -> None:
    rng = np.random.default_rng([start, len(labels)])
    noise = rng.normal(0, 8, size=(64, SIZE_PX, SIZE_PX, 3)).astype(np.float32)
    for at, label in enumerate(labels, start=start):
        path = folder / _file(at)
        if at % _IN_A_FOLDER == 0:
            path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.asarray(_drawn(int(label), rng), dtype=np.float32) + noise[rng.integers(len(noise))]
        stream = BytesIO()
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(stream, "JPEG", quality=90)
        path.write_bytes(stream.getvalue())


def _drawn(label: int, rng: np.random.Generator) -> Image.Image:
    colour, thing, place = CLASSES[label].split()
    ground, ink = (np.array(of) + rng.normal(0, 8, size=3) for of in (PLACES[place], COLOURS[colour]))
    image = Image.new("RGB", (SIZE_PX, SIZE_PX), _rgb(ground))
    pen = ImageDraw.Draw(image)
    pen.rectangle((0, SIZE_PX * rng.uniform(0.3, 0.9), SIZE_PX, SIZE_PX), fill=_rgb(ground * 0.85))
    scale = 0.5 * SIZE_PX * rng.uniform(0.6, 0.95)
    centre = rng.uniform(0.85 * scale, SIZE_PX - 0.85 * scale, size=2)
    for part in OBJECTS[thing]:
        points = part.points * [rng.choice((-1.0, 1.0)) if part is OBJECTS[thing][0] else 1.0, 1.0] * scale + centre
        pen.polygon([tuple(point) for point in points], fill=_rgb(ink * part.shade))
    return image


def _rgb(colour: np.ndarray) -> tuple[int, int, int]:
    red, green, blue = (int(value) for value in np.clip(colour, 0, 255))
    return red, green, blue
