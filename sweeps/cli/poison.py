"""`ubt poison`: the poisoned training set of a study's base configuration as files, for other tools."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from pydantic import JsonValue

from sweeps.run.preflight import prepare
from sweeps.search.designs import Grid
from sweeps.study.config import StudyConfig
from ubt.artifacts.store import ArtifactStore, UnusableStore, default_store, local_cache
from ubt.common.atomic_files import write_whole
from ubt.common.errors import Problem, StageFault, UserError
from ubt.common.progress import progress
from ubt.config import Config
from ubt.data.base import Pairs, PairSource

if TYPE_CHECKING:
    from ubt.engine.poisoning import PoisonManifest

PAIRS, MANIFEST, IMAGES = "pairs.csv", "manifest.json", "images"
_BLOCK = 256


class PoisonedPair(Config):
    """One pair that the attacker replaced."""

    index: int
    """Its row of `pairs.csv`, from 0."""
    image: str
    """Its file, relative to the folder."""
    caption: str
    original_caption: str


class PoisonList(Config):
    """What `manifest.json` says: which pairs are poisoned, and with what."""

    study: str
    seed: int
    attack: dict[str, JsonValue]
    image_size_px: int
    pairs: int
    """Number of all pairs, poisoned or not."""
    poisoned: tuple[PoisonedPair, ...]
    decoys: tuple[int, ...]
    """Rows of clean images whose captions the attacker changed without naming the target."""


def write_files(study: str, seed: int, clean: Pairs, manifest: PoisonManifest, folder: Path) -> PoisonList:
    """Write the pairs `clean` as the manifest poisons them; `manifest.json` comes last and vouches for the rest.

    Raises:
        OSError: if the folder cannot be written.
    """
    from ubt.engine.poisoning import poisoned_pairs  # noqa: PLC0415 — torch, 5 s, which the other commands do not need

    pairs = poisoned_pairs(clean, manifest)
    names = [f"{IMAGES}/{index:06d}.png" for index in range(len(pairs))]
    _write_images(pairs, names, folder)
    write_whole(folder / PAIRS, _table(zip(names, pairs.captions, strict=True)))
    found = PoisonList(
        study=study,
        seed=seed,
        attack=manifest.attack.as_json(),
        image_size_px=clean.images.shape[1],
        pairs=len(pairs),
        poisoned=tuple(
            PoisonedPair(index=index, image=names[index], caption=caption, original_caption=clean.captions[index])
            for index, caption in zip(manifest.indices.tolist(), manifest.captions, strict=True)
        ),
        decoys=tuple(manifest.decoys.tolist()),
    )
    write_whole(folder / MANIFEST, found.model_dump_json(indent=1) + "\n")
    return found


def _write_images(pairs: PairSource, names: list[str], folder: Path) -> None:
    (folder / IMAGES).mkdir(parents=True, exist_ok=True)
    blocks = np.split(np.arange(len(names)), range(_BLOCK, len(names), _BLOCK))
    for block in progress(blocks, len(blocks), "images"):
        for index, image in zip(block, pairs.take(block), strict=True):
            Image.fromarray(image).save(folder / names[index])


def _table(rows: Iterable[tuple[str, str]]) -> str:
    """Return a CSV as `ubt/data/csv.py` reads it."""
    stream = io.StringIO(newline="")
    writer = csv.writer(stream)
    writer.writerow(("image", "caption"))
    writer.writerows(rows)
    return stream.getvalue()


if TYPE_CHECKING:
    from ubt.engine.graph import Pipeline
    from ubt.engine.poisoning import PoisonManifest
    from ubt.engine.workspace import Workspace
    from ubt.trials.config import TrialConfig


def write_poisoned(study: StudyConfig, out: Path) -> str:
    """Write the pairs that the base configuration trains on with its first seed; return in words what was written.

    Raises:
        UserError: if the folder is in use or cannot be written, the data or the weights cannot be read, the
            attack cannot be made, or the victim comes poisoned.
    """
    _check_victim(study)
    _check_empty(out)
    store = study.store or default_store()
    prepare(study.with_parts(search=Grid()), store)
    try:
        workspace, manifest = _poison(study, store)
        found = write_files(study.name, study.seeds[0], workspace.data.train, manifest, out)
    except StageFault as fault:
        raise UserError(Problem(f"study {study.name}", str(fault))) from fault
    except UnusableStore:
        raise  # an OSError as well, but none of --out
    except OSError as error:
        raise UserError(Problem("--out", f"cannot be written: {error}", str(out))) from error
    return f"{found.pairs} pairs in {out / PAIRS}; {len(found.poisoned)} are poisoned, listed in {out / MANIFEST}"


def _check_victim(study: StudyConfig) -> None:
    checkpoint = study.victim.implant.checkpoint
    if checkpoint:
        message, advice = "the victim comes poisoned: its pairs are taken as they are", "leave the checkpoint out"
        raise UserError(Problem("victim.implant.checkpoint", message, str(checkpoint), advice))


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
    device = pick_device(study.resources.gpus_per_trial if trial.victim.attack.learns else 0)
    workspace = Workspace(trial.victim.data, trial.victim.model, device, ArtifactStore(store), local_cache(store))
    clean, poison, *_ = build_pipeline(trial, study.seeds[0])
    if trial.victim.attack.learns:
        return workspace, _from_pipeline((clean, poison), trial, workspace)
    output = run(PrivilegedContext(poison, workspace, {}))
    return workspace, PoisonManifest.read(output.tensors, output.facts)


def _from_pipeline(pipeline: Pipeline, trial: TrialConfig, workspace: Workspace) -> PoisonManifest:
    from ubt.engine.poisoning import PoisonManifest  # noqa: PLC0415
    from ubt.engine.runner import PipelineRun  # noqa: PLC0415

    for record in PipelineRun(pipeline, trial, workspace, {}).steps():
        epoch = f"epoch {record.epochs[-1].epoch}" if record.epochs else ""
        state = ("reused" if record.reused else "done") if record.complete else epoch
        print(f"{record.stage:<10}  {state}  {record.spent_seconds:.1f} s", file=sys.stderr, flush=True)
    poison = workspace.load("poison", pipeline[-1].key)
    assert poison is not None  # noqa: S101 — it was published just now
    return PoisonManifest.of(poison)
