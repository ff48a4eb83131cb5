"""A poisoned training set as files: pairs, which of them are poisoned, and what else a study of them needs."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import yaml
from PIL import Image
from pydantic import JsonValue

from sweeps.run.folder import presentable
from sweeps.study.config import StudyConfig
from ubt.common.atomic_files import write_whole
from ubt.common.errors import Problem, UserError
from ubt.common.hashing import digest_file
from ubt.common.progress import progress
from ubt.config.dotted_paths import JsonObject
from ubt.data.base import DataSet, DataSource, Labelled, Pairs, PairSource
from ubt.trials.poison import PoisonedPair, PoisonList

if TYPE_CHECKING:
    from ubt.engine.poisoning import PoisonManifest

PAIRS, MANIFEST, IMAGES, TRIGGER, STUDY = "pairs.csv", "manifest.json", "images", "trigger.png", "study.yaml"
PRETRAIN, VAL, TEST, CLASSES, TEMPLATES = "pretrain.csv", "val.csv", "test.csv", "classes.txt", "templates.txt"
_BLOCK = 256
_SETTLED = ("victim.data", "victim.attack", "victim.poison")
"""What a study of these pairs can vary no more."""


def write_files(study: str, seed: int, clean: Pairs, manifest: PoisonManifest, folder: Path) -> PoisonList:
    """Write the pairs `clean` as the manifest poisons them; `manifest.json` comes last and vouches for the rest.

    Raises:
        OSError: if the folder cannot be written.
    """
    from ubt.engine.poisoning import poisoned_pairs  # noqa: PLC0415 — torch, 5 s, which the other commands do not need

    assert manifest.attack is not None  # noqa: S101 — what came poisoned is not poisoned again
    pairs = poisoned_pairs(clean, manifest)
    names = _write_pairs(pairs, IMAGES, folder / PAIRS)
    learned = manifest.attack.learns and manifest.trigger is not None
    if learned:
        Image.fromarray(np.asarray(manifest.trigger)).save(folder / TRIGGER)
    found = PoisonList(
        study=study,
        seed=seed,
        attack=manifest.attack.as_json(),
        attack_files={name: digest_file(path) for name, path in manifest.attack.files().items()},
        image_size_px=clean.images.shape[1],
        pairs=len(pairs),
        poisoned=tuple(
            PoisonedPair(index=index, image=names[index], caption=caption, original_caption=clean.captions[index])
            for index, caption in zip(manifest.indices.tolist(), manifest.captions, strict=True)
        ),
        decoys=tuple(manifest.decoys.tolist()),
        trigger=TRIGGER if learned else None,
        trigger_sha256=digest_file(folder / TRIGGER) if learned else "",
    )
    write_whole(folder / MANIFEST, found.model_dump_json(indent=1) + "\n")
    return found


def write_study(study: StudyConfig, data: DataSet, folder: Path) -> str:
    """Write what a study of poisoned pairs needs beside them, and that study; return in words what it leaves out.

    It is the `study` on the pairs of its first seed, with the same labelled images, prompts and clean pairs: with the
    same seed it comes to the same models.

    Raises:
        OSError: if the folder cannot be written.
        UserError: if a class or a prompt cannot be written as a line of text.
    """
    used: dict[str, JsonValue] = {"kind": "csv", "pairs": PAIRS, "labels": VAL, "test_labels": TEST}
    for name, split in ((VAL, data.val), (TEST, data.test)):
        _write_labelled(split, data.classes, folder / name)
    if data.pretrain is not None:
        _write_pairs(data.pretrain, "pretrain", folder / PRETRAIN)
        used["pretrain"] = PRETRAIN
    for field, name, lines in (("classes", CLASSES, data.classes), ("templates", TEMPLATES, data.templates)):
        used[field] = _word(study.victim.data, field) or _write_lines(lines, folder / name)
    tree: JsonObject = json.loads(presentable(study))
    base = StudyConfig(name=study.name).as_json()
    searched = [*study.search.space, *(path for changes in study.layout() for path in changes)]
    settled = sorted({path for path in searched if path.startswith(_SETTLED)})
    if settled:
        tree["search"] = base["search"]
    victim: JsonObject = {**_object(tree, "victim"), "data": used, "poison": {"kind": "given", "manifest": MANIFEST}}
    for name, path in (study.victim.attack.files() if study.victim.attack else {}).items():
        copied = f"trigger-{name}{path.suffix}"
        write_whole(folder / copied, path.read_bytes())
        victim["attack"] = {**_object(victim, "attack"), name: copied}
    tree["victim"] = victim
    tree |= {"name": f"{study.name}-given"[:64], "seeds": [study.seeds[0]]}
    said = f"# The study {study.name} on the poisoned pairs in this folder, which are those of seed {study.seeds[0]}.\n"
    text = yaml.safe_dump({"name": tree["name"], **_said(tree, base)}, sort_keys=False, allow_unicode=True)
    write_whole(folder / STUDY, said + text)
    return f"without the search over {', '.join(settled)}, which is settled now" if settled else ""


def _object(tree: JsonObject, name: str) -> JsonObject:
    return cast(JsonObject, tree[name])


def _said(tree: JsonObject, base: JsonObject) -> JsonObject:
    """Return what `tree` says that is not the default anyway; objects of another kind than the default's say all."""
    said: JsonObject = {}
    for name, value in tree.items():
        other = base.get(name)
        if name in {"kind", "design"}:
            said[name] = value
        elif isinstance(value, dict) and isinstance(other, dict):
            tags = [tag for tag in ("kind", "design") if value.get(tag) != other.get(tag)]
            if value != other:
                said[name] = value if tags else _said(value, other)
        elif name not in base or value != other:
            said[name] = value
    return said


def _word(source: DataSource, field: str) -> str | None:
    """Return what a field says if that is no file but a word for what comes with a package, such as `imagenet`."""
    value = getattr(source, field, None)
    return value if value in source.builtin_names else None


def _write_lines(lines: Sequence[str], path: Path) -> str:
    for line in lines:
        if line != line.strip() or "\n" in line or not line:
            raise UserError(Problem(path.name, "is no line of a text file without spaces around it", line))
    write_whole(path, "".join(f"{line}\n" for line in lines))
    return path.name


def _write_pairs(pairs: PairSource, folder: str, table: Path) -> list[str]:
    """Write pairs as a table and a folder of images beside it; return the images' names."""
    names = _names(folder, len(pairs))
    _write_images(pairs, names, table.parent)
    write_whole(table, _table("caption", zip(names, pairs.captions, strict=True)))
    return names


def _write_labelled(split: Labelled, classes: Sequence[str], table: Path) -> None:
    names = _names(table.stem, len(split))
    _write_images(Pairs(split.images, [""] * len(split)), names, table.parent)
    times = Counter(classes)
    labels = (classes[label] if times[classes[label]] == 1 else str(label) for label in split.labels.tolist())
    write_whole(table, _table("label", zip(names, labels, strict=True)))


def _names(folder: str, count: int) -> list[str]:
    return [f"{folder}/{index:06d}.png" for index in range(count)]


def _write_images(pairs: PairSource, names: Sequence[str], folder: Path) -> None:
    for name in names[:1]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
    blocks = np.split(np.arange(len(names)), range(_BLOCK, len(names), _BLOCK))
    for block in progress(blocks, len(blocks), "images"):
        for index, image in zip(block, pairs.take(block), strict=True):
            Image.fromarray(image).save(folder / names[index])


def _table(column: str, rows: Iterable[tuple[str, str]]) -> str:
    """Return a CSV as `ubt/data/csv.py` reads it."""
    stream = io.StringIO(newline="")
    writer = csv.writer(stream)
    writer.writerow(("image", column))
    writer.writerows(rows)
    return stream.getvalue()
