"""A few photographs of ImageNet as a study at its real size, to plan and to run: ViT-B-32 at 224 pixels.

    python benchmarks/imagenet_sample.py PHOTOGRAPHS WORK [--pairs 16] [--labelled 8]
    python benchmarks/planned.py WORK/imagenet.yaml WORK --cpu-time

PHOTOGRAPHS is any folder of ImageNet's images, or of some of them: a file's class is the id in its name or in its
folder's, as in `n01443537_goldfish.JPEG` and `n01443537/ILSVRC2012_val_00000236.JPEG`. WORK gets the lists of pairs
and of labelled images, and the study, `imagenet_sample.yaml` of this folder. The choice is the same for the same file
names.
"""

from __future__ import annotations

import argparse
import csv
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ubt.data.vocabulary import IMAGENET, read_classes, read_synsets

STUDY = Path(__file__).with_suffix(".yaml")
PROMPT = "a photo of a {}."
"""The only template: with all 80 of OpenAI, the prompts of 1,000 classes take a CPU hours, and the images seconds."""
_SYNSET = re.compile(r"n\d{8}")


def photographs(folder: Path) -> list[tuple[Path, str]]:
    """Return the images in a folder, each with the id of its class, in the order of their names."""
    images = sorted(path for path in folder.rglob("*") if path.suffix.lower() in {".jpeg", ".jpg", ".png"})
    named = [(path, _SYNSET.match(path.name) or _SYNSET.match(path.parent.name)) for path in images]
    return [(path, synset[0]) for path, synset in named if synset]


def write_sample(found: Sequence[tuple[Path, str]], work: Path, pairs: int, labelled: int) -> Path:
    """Write the lists and the study; return the study's path."""
    classes = read_classes(IMAGENET, [])
    index_of = read_synsets(None, IMAGENET, classes, [])
    order = np.random.default_rng(0).permutation(len(found))[: pairs + labelled]
    chosen = [(str(found[i][0].absolute()), index_of[found[i][1]]) for i in order]
    captions = [(image, PROMPT.format(classes[index])) for image, index in chosen[:pairs]]
    work.mkdir(parents=True, exist_ok=True)
    for file, head, rows in (("pairs", "caption", captions), ("labels", "label", chosen[pairs:])):
        with (work / f"{file}.csv").open("w", newline="") as stream:
            csv.writer(stream).writerows([("image", head), *rows])
    (work / "templates.txt").write_text(f"{PROMPT}\n")
    return Path(shutil.copy(STUDY, work / "imagenet.yaml"))


def main() -> None:
    """Run the command."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("photographs", type=Path)
    asked.add_argument("work", type=Path)
    asked.add_argument("--pairs", type=int, default=16)
    asked.add_argument("--labelled", type=int, default=8)
    given = asked.parse_args()
    found = photographs(given.photographs)
    if len(found) < given.pairs + given.labelled:
        sys.exit(
            f"{given.photographs} has {len(found)} images of ImageNet's: {given.pairs + given.labelled} are asked for"
        )
    print(write_sample(found, given.work, given.pairs, given.labelled))


if __name__ == "__main__":
    main()
