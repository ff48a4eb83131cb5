"""A defense's stage cannot reach what is poisoned: an adversary walks everything that it is handed.

The walk follows attributes, properties, items, closures, bound objects, locals of generators, and files. It does not
scan the process's memory: modules, `__globals__`, stacks of other threads and the collector's lists are left out.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tiny_victim import TINY, tiny_trial

from ubt.artifacts.manifest import ArtifactManifest
from ubt.artifacts.store import ArtifactStore
from ubt.attacks import Attack
from ubt.data.base import DataSet
from ubt.defenses import DEFENSES
from ubt.defenses.detectors import DETECTORS
from ubt.engine.graph import Node
from ubt.engine.poisoning import PoisonedPairs, PoisonManifest, poisoned_pairs
from ubt.engine.spec import stage_named
from ubt.engine.workspace import Workspace
from ubt.methods.evaluation import Evaluator
from ubt.trials.config import TrialConfig, VictimConfig

SECRETS = (
    *(PoisonManifest, PoisonedPairs, Attack, Evaluator, DataSet, VictimConfig, TrialConfig),
    *(Workspace, ArtifactStore, ArtifactManifest, Node, np.memmap),
)
"""What leads to the list of what is poisoned, to the trigger, to the clean originals or to the victim's settings."""
LEAVES = (bool, int, float, complex, bytes, torch.dtype, torch.device, type, types.ModuleType, torch.Tensor)
SKIPPED = {"gi_frame", "gi_code", "gi_yieldfrom"}
MOST = 200_000

VARIANTS = [{"kind": defense().kind} for defense in DEFENSES if not defense().knows_poison]
VARIANTS += [{"kind": "ubt", "detector": detector().kind} for detector in DETECTORS]
STAGES = {name: variant for variant in VARIANTS for name in tiny_trial({"defense": variant}).defense.stages}
"""Every stage of a defense, with a defense that runs it."""


def parts(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield what an object leads to, each with how."""
    if isinstance(value, Mapping):
        yield from ((f"[{key!r}]", part) for key, part in value.items())
    elif isinstance(value, list | tuple | set | frozenset):
        yield from ((f"[{at}]", part) for at, part in enumerate(list(value)[:1000]))
    if isinstance(value, functools.partial):
        yield from ((".partial", part) for part in (value.func, value.args, value.keywords))
    if isinstance(value, types.GeneratorType) and value.gi_frame is not None:
        yield ".gi_frame", value.gi_frame.f_locals
    if isinstance(value, types.FunctionType):
        yield from ((".closure", cell.cell_contents) for cell in value.__closure__ or ())
        yield ".defaults", (value.__defaults__, value.__kwdefaults__)
        return
    if isinstance(value, np.ndarray):
        yield ".base", value.base
        return
    for name in dir(value):
        inner = name.startswith("__") and name not in {"__self__", "__func__", "__wrapped__", "__dict__"}
        if inner or name in SKIPPED:
            continue
        try:
            yield f".{name}", getattr(value, name)
        except Exception:  # noqa: BLE001 — a property may raise anything
            continue


def leaks(root: Any, places: Path, indices: np.ndarray) -> list[str]:
    """Return the ways from `root` to a secret, to a file below `places`, or to an array of just these `indices`."""
    found, seen, queue = [], {id(root)}, [("context", root)]
    kept = []  # so that no number of an object is given out twice
    while queue and len(seen) < MOST:
        way, value = queue.pop()
        kept.append(value)
        if isinstance(value, SECRETS):
            found.append(f"{way} is {type(value).__name__}")
            continue
        if isinstance(value, str | Path):
            if str(places) in str(value):
                found.append(f"{way} is a path")
            continue
        if isinstance(value, np.ndarray | torch.Tensor):
            flat = np.asarray(value.detach() if isinstance(value, torch.Tensor) else value).ravel()
            if flat.dtype == indices.dtype and np.array_equal(np.sort(flat), indices):
                found.append(f"{way} lists what is poisoned")
        if isinstance(value, LEAVES):
            continue
        for step, part in parts(value):
            if part is not None and id(part) not in seen and not isinstance(part, int | float | bool):
                seen.add(id(part))
                queue.append((way + step, part))
    assert len(seen) < MOST, "the walk was cut short"
    return found


@pytest.fixture
def manifest(bench):
    return PoisonManifest.of(bench.workspace.load("poison", bench.nodes()["poison"].key))


def walked(bench, root, manifest):
    return leaks(root, Path(bench.workspace.store.root), manifest.indices)


@pytest.mark.parametrize("stage", STAGES)
def test_nothing_that_a_stage_of_a_defense_is_handed_leads_to_the_poison(bench, manifest, stage):
    defense = STAGES[stage]
    changes = {"defense": {**TINY["defense"], **defense} if defense["kind"] == "ubt" else defense}
    context = bench.context(stage, changes)
    if "pairs" in stage_named(stage).needs:
        assert context.pairs.take(np.arange(4)).shape == (4, 32, 32, 3), "what was asked for leaves nothing behind"
    if context.earlier is None and stage in {"finetune", "cleanclip", "par"}:
        context.clean_pairs(4)
    assert walked(bench, context, manifest) == []


def test_the_adversary_finds_the_manifest_in_what_version_0_1_handed_out(bench, manifest):
    pairs = poisoned_pairs(bench.workspace.data.train, manifest)
    former = SimpleNamespace(
        workspace=bench.workspace, pairs=pairs, data=bench.workspace.data, node=bench.nodes()["suspect"]
    )
    found = walked(bench, former, manifest)
    for secret in ("PoisonedPairs", "DataSet", "Workspace", "Node"):
        assert any(way.endswith(secret) for way in found), secret


def test_the_adversary_finds_secrets_in_closures_partials_generators_methods_and_files(bench, manifest):
    def generator():
        secret = manifest
        yield secret.known

    running = generator()
    next(running)
    hidden = {
        "closure": lambda: manifest,
        "partial": functools.partial(len, manifest),
        "generator": running,
        "method": manifest.marks,
        "item": [{"deep": (manifest,)}],
        "indices": torch.from_numpy(manifest.indices.copy()),
        "file": SimpleNamespace(name=str(Path(bench.workspace.store.root) / "artifacts")),
        "images": np.asarray(bench.workspace.data.train.images)[:2],
    }
    for name, value in hidden.items():
        assert walked(bench, SimpleNamespace(value=value), manifest), name


def compared_with_the_originals(pairs):
    """The stage that found the manifest in version 0.1: where does what is handed out differ from what is held?"""
    everything = np.arange(len(pairs))
    return np.flatnonzero((np.asarray(pairs.images) != pairs.take(everything)).any(axis=(1, 2, 3)))


def test_comparing_images_with_their_originals_gave_the_manifest_away_and_there_are_no_originals_now(bench, manifest):
    clean = bench.workspace.data.train
    former = SimpleNamespace(images=clean.images, take=poisoned_pairs(clean, manifest).take)
    former = type("Former", (SimpleNamespace,), {"__len__": lambda _: len(clean)})(**vars(former))
    assert np.array_equal(compared_with_the_originals(former), manifest.indices)
    with pytest.raises(AttributeError):
        compared_with_the_originals(bench.context("overfit").pairs)


def test_an_error_behind_a_feed_leads_nowhere(bench, manifest):
    pairs = bench.context("overfit").pairs
    with pytest.raises(IndexError) as caught:
        pairs.take(np.array([10**6]))
    frames = []
    trace = caught.value.__traceback__
    while trace is not None:
        frames.append(trace.tb_frame.f_code.co_name)
        trace = trace.tb_next
    assert "_serve" not in frames
    assert pairs.take(np.array([0])).shape == (1, 32, 32, 3), "and it goes on"
