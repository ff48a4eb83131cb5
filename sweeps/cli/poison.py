"""`ubt poison`: the poisoned training set of a study's base configuration as files, for other tools.

Pairs, which of them are poisoned, and what else a study of them needs.
"""

from __future__ import annotations

import csv
import io
import json
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import yaml
from PIL import Image
from pydantic import JsonValue

from sweeps.run.folder import presentable
from sweeps.run.preflight import prepare
from sweeps.search.designs import Grid
from sweeps.study.config import StudyConfig
from ubt.artifacts.store import ArtifactStore, UnusableStore, default_store, local_cache
from ubt.common.atomic_files import write_whole
from ubt.common.errors import Problem, StageFault, UserError
from ubt.common.hashing import digest_file
from ubt.common.progress import progress
from ubt.config.dotted_paths import JsonObject
from ubt.data.base import DataSet, DataSource, Labelled, Pairs, PairSource
from ubt.trials.poison import GivenPoison, PoisonedPair, PoisonList

if TYPE_CHECKING:
    from ubt.engine.graph import Pipeline
    from ubt.engine.poisoning import PoisonManifest
    from ubt.engine.workspace import Workspace
    from ubt.trials.config import TrialConfig

PAIRS, MANIFEST, IMAGES, TRIGGER, STUDY = "pairs.csv", "manifest.json", "images", "trigger.png", "study.yaml"
PRETRAIN, VAL, TEST, CLASSES, TEMPLATES = "pretrain.csv", "val.csv", "test.csv", "classes.txt", "templates.txt"
_BLOCK = 256
_SETTLED = ("victim.data", "victim.attack", "victim.poison")
"""What a study of these pairs can vary no more."""


def write_poisoned(study: StudyConfig, out: Path, complete: bool = False) -> str:
    """Write the pairs that the base configuration trains on with its first seed; return in words what was written.

    If `complete`, with all that a study of these pairs needs, and that study.

    Raises:
        UserError: if the folder is in use or cannot be written, the data or the weights cannot be read, the
            attack cannot be made, or the pairs come poisoned.
    """
    _check_victim(study)
    _check_empty(out)
    store = study.store or default_store()
    prepare(study.with_parts(search=Grid()), store)
    try:
        workspace, manifest = _poison(study, store)
        out.mkdir(parents=True, exist_ok=True)
        left_out = write_study(study, workspace.data, out) if complete else ""
        found = write_files(study.name, study.seeds[0], workspace.data.train, manifest, out)
    except StageFault as fault:
        raise UserError(Problem(f"study {study.name}", str(fault))) from fault
    except UnusableStore:
        raise  # an OSError as well, but none of --out
    except OSError as error:
        raise UserError(Problem("--out", f"cannot be written: {error}", str(out))) from error
    told = f"{found.pairs} pairs in {out / PAIRS}; {len(found.poisoned)} are poisoned, listed in {out / MANIFEST}"
    if complete:
        told += f"\nThe study of them is {out / STUDY}" + (f", {left_out}" if left_out else "")
    return told


def _check_victim(study: StudyConfig) -> None:
    if study.victim.attack is None:
        raise UserError(Problem("victim.attack", "is null: there is nothing to poison with", advice="name the attack"))
    if isinstance(study.victim.poisoning, GivenPoison):
        message, given = "the victim's pairs come poisoned: there is nothing to add", study.victim.poisoning.kind
        raise UserError(Problem("victim.poison", message, given, "say `victim.poison.kind: made` to poison them here"))


def _check_empty(out: Path) -> None:
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        message = "is not empty" if out.is_dir() else "is no folder"
        raise UserError(Problem("--out", message, str(out), "give a new or an empty folder: nothing is overwritten"))


def _poison(study: StudyConfig, store: str) -> tuple[Workspace, PoisonManifest]:
    """Return the data, and which pairs are poisoned with what: the same as when the study is run.

    Only an attack that learns its trigger needs the clean model, which is then made, or found in the store.
    """
    from ubt.engine.context import PrivilegedContext  # noqa: PLC0415
    from ubt.engine.graph import build_pipeline  # noqa: PLC0415 — torch, 5 s, after the mistakes have been reported
    from ubt.engine.poisoning import PoisonManifest  # noqa: PLC0415
    from ubt.engine.workspace import Workspace  # noqa: PLC0415
    from ubt.models.clip import pick_device, use_threads  # noqa: PLC0415
    from ubt.stages.poison import run  # noqa: PLC0415

    use_threads(study.resources.cpus_per_trial)
    trial = study.trial({})
    learns = trial.victim.attack is not None and trial.victim.attack.learns
    device = pick_device(study.resources.gpus_per_trial if learns else 0)
    workspace = Workspace(trial.victim.data, trial.victim.model, device, ArtifactStore(store), local_cache(store))
    pipeline = build_pipeline(trial, study.seeds[0])
    clean, poison = (next(node for node in pipeline if role in node.spec.provides) for role in ("clean", "manifest"))
    if learns:
        return workspace, _from_pipeline((clean, poison), trial, workspace)
    output = run(PrivilegedContext(poison, workspace, {}))
    return workspace, PoisonManifest.read(output.tensors, output.facts)


def _from_pipeline(pipeline: Pipeline, trial: TrialConfig, workspace: Workspace) -> PoisonManifest:
    from ubt.engine.pipeline import PipelineRun  # noqa: PLC0415
    from ubt.engine.poisoning import PoisonManifest  # noqa: PLC0415

    for record in PipelineRun(pipeline, trial, workspace, {}).steps():
        epoch = f"epoch {record.epochs[-1].epoch}" if record.epochs else ""
        state = ("reused" if record.reused else "done") if record.complete else epoch
        print(f"{record.stage:<10}  {state}  {record.spent_seconds:.1f} s", file=sys.stderr, flush=True)
    poison = workspace.load("poison", pipeline[-1].key)
    assert poison is not None  # noqa: S101 — it was published just now
    return PoisonManifest.of(poison)


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
