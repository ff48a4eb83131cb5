"""Labels of evaluation images: what they mean, and which images are for validation and which for the test."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ubt.data.base import Labels
from ubt.data.problems import LISTED
from ubt.data.tables import Row
from ubt.errors import Problem
from ubt.seeding import numpy_generator

_INDEX = re.compile(r"-?[0-9]+")


def parse_labels(rows: Sequence[Row], classes: Sequence[str], problems: list[Problem]) -> Labels:
    """Return the class index of each row, `[N]` int64; a label is a class name or an index.

    Adds to `problems` every index out of range, every unknown name, and names that two classes share.
    """
    times = Counter(classes)
    positions = {name: index for index, name in enumerate(classes)}
    labels = np.zeros(len(rows), dtype=np.int64)
    for at, row in enumerate(rows):
        if times[row.text] > 1:
            problems.append(Problem(row.where, "several classes have this name; give the index", row.text))
        elif row.text in positions:
            labels[at] = positions[row.text]
        elif not _INDEX.fullmatch(row.text):
            # Looking for a similar name takes milliseconds: not for problems that will not be listed.
            advice = _nearest(row.text, classes) if len(problems) < LISTED else ""
            problems.append(Problem(row.where, "unknown class", row.text, advice))
        elif not 0 <= int(row.text) < len(classes):
            message = f"class index out of range; {len(classes)} classes are 0 to {len(classes) - 1}"
            problems.append(Problem(row.where, message, int(row.text)))
        else:
            labels[at] = int(row.text)
    return labels


def stratified_split(labels: Labels, val_fraction: float, seed: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the positions in `labels[N]` of the validation images and those of the test images, both sorted.

    Systematic sampling: images are lined up class by class, classes and images in random order, and every
    (1 / `val_fraction`)-th is taken. So the fraction holds in each class, and over all, to within one image
    — also when classes have but one image each, where rounding class by class would give none.
    """
    rng = numpy_generator(seed, "labels", "split")
    shuffled = rng.permutation(len(labels))
    turn_of_class = rng.permutation(int(labels.max(initial=-1)) + 1)
    line = shuffled[np.argsort(turn_of_class[labels[shuffled]], kind="stable")]
    taken = np.diff(np.floor(np.arange(len(labels) + 1) * val_fraction + 0.5)) > 0
    return np.sort(line[taken]), np.sort(line[~taken])


def _nearest(name: str, classes: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, classes, n=1)
    return f"did you mean `{close[0]}`?" if close else "give a line of `classes`, or its index from 0"
