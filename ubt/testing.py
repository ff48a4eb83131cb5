"""Contract tests for plug-ins: what every attack, defense, detector, metric, stage and data source must do.

Each function raises `AssertionError` with what is wrong. Call them from your own tests:

    from ubt.testing import check_attack, check_detector

    def test_the_attack(): check_attack(Plus)
    def test_the_detector(): check_detector(Norms)

Those that run a stage do so on a victim small enough to be trained in two seconds; it learns next to nothing.
"""

from __future__ import annotations

import inspect
import json
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ubt.artifacts.codec import TENSORS, decode
from ubt.artifacts.store import ArtifactStore
from ubt.attacks import ATTACKS, Attack, AttackConfig, Images, Rows
from ubt.common.hashing import fingerprint
from ubt.common.registry import Registry
from ubt.config import Config, set_path
from ubt.config.base import descriptions, kind_of
from ubt.data import DATA_SOURCES, DataSource, content_key
from ubt.defenses import DEFENSES, Defense
from ubt.defenses.detectors import DETECTORS, Detector
from ubt.engine.graph import build_pipeline, stages_of
from ubt.engine.runner import run_trial
from ubt.engine.spec import MANIFEST, StageSpec, imported, stage_named
from ubt.trials.config import TrialConfig
from ubt.trials.metrics import METRICS, Metric
from ubt.trials.record import State, TrialRecord

TINY: dict[str, Any] = {
    "victim": {
        "data": {"kind": "scenes", "pretrain_pairs": 160, "train_pairs": 200, "val_images": 48, "test_images": 48},
        "pretrain": {"epochs": 1, "batch_size": 40},
        "attack": {"kind": "badnets", "poison_rate": 0.1},
        "implant": {"epochs": 1, "batch_size": 40, "min_asr": 0.0},
    },
    "defense": {
        "kind": "ubt",
        "suspicious_ratio": 0.1,
        "overfit_epochs": 2,
        "overfit_batch_size": 8,
        "unlearn_samples": 8,
        "unlearn_epochs": 2,
        "unlearn_batch_size": 4,
        "retain_batch_size": 16,
    },
}
"""A trial of three seconds: 200 training pairs of which 20 are poisoned, 20 suspects, 8 unlearned."""

SIZES_PX = (16, 32, 33, 64, 224)


def tiny_trial(changes: Mapping[str, Any] | None = None) -> TrialConfig:
    """Return the tiny trial with other values at some dotted paths."""
    tree = TINY
    for path, value in (changes or {}).items():
        tree = set_path(tree, path, value)
    return TrialConfig.model_validate(tree)


def run_tiny_trial(store: str | Path, changes: Mapping[str, Any] | None = None, seed: int = 0) -> TrialRecord:
    """Run the tiny trial in this process, on one thread, and return its last record; artifacts lie in `store`."""
    return run_trial(tiny_trial(changes), store, seed, name="tiny")


def stamped(attack: Attack, images: Images) -> Images:
    """Return `images[N, H, W, 3]` with the trigger on, as the first N training pairs get it."""
    return attack.stamp(images, Rows.first(len(images)))


def check_attack(attack: type[Attack], settings: Mapping[str, Any] | None = None) -> None:
    """Check that triggers are pure functions of image, row, settings and seed, and captions name the target.

    `settings` are those without a default, such as the file of a trigger.
    """
    _check_registered(attack, ATTACKS)
    made = attack.model_validate(settings or {})
    if made.learns:
        made = made.carrying(_pictures(1, 5)[0])
    made.check_files()
    trigger = made.read()
    if trigger is not None:
        made = made.carrying(trigger)
    for size_px in SIZES_PX:
        images = _pictures(3, size_px)
        before = images.copy()
        rows = Rows("val", np.array([5, 2, 9]))
        triggered = made.stamp(images, rows)
        assert triggered.dtype == np.uint8, f"stamp returns {triggered.dtype}, not uint8"
        assert triggered.shape == images.shape, f"stamp returns {triggered.shape} for {images.shape}"
        assert np.array_equal(images, before), "stamp changes the images that it is given"
        images.flags.writeable = False  # as memory-mapped ones are
        assert not np.shares_memory(triggered, images), "stamp returns the images that it is given"
        assert triggered.flags.writeable, "what stamp returns cannot be written to"
        assert not np.array_equal(triggered, images), "stamp changes nothing"
        assert np.array_equal(made.stamp(images, rows), triggered), "the same images are stamped differently"
        one_by_one = (slice(index, index + 1) for index in range(len(images)))
        alone = [made.stamp(images[one], Rows("val", rows.numbers[one]))[0] for one in one_by_one]
        assert np.array_equal(alone, triggered), "an image's trigger depends on the others"
        backwards = made.stamp(images[::-1], Rows("val", rows.numbers[::-1]))
        assert np.array_equal(backwards, triggered[::-1]), "an image's trigger depends on its place"
    none = made.stamp(np.zeros((0, 32, 32, 3), dtype=np.uint8), Rows.first(0))
    assert none.shape == (0, 32, 32, 3), "no images are an error"
    state = repr(np.random.get_state())
    made.stamp(_pictures(2, 32), Rows.first(2))
    assert repr(np.random.get_state()) == state, "stamp draws from numpy's global generator"
    captions = [f"one {made.target}", "nothing"]
    eligible = made.eligible(captions)
    assert eligible.dtype == np.bool_, f"eligible returns {eligible.dtype}, not bool"
    assert eligible.shape == (2,), f"eligible returns {eligible.shape} for two captions"
    assert eligible[0], "a pair that names the target cannot be poisoned"
    assert made.target in made.caption(np.random.default_rng(0), captions[0]), "a caption does not name the target"
    _check_round_trip(made, AttackConfig)


def check_defense(defense: type[Defense], settings: Mapping[str, Any] | None = None) -> None:
    """Check that a defense's stages fit together, and that none knows what is poisoned unless it says so.

    `settings` are those that the tiny trial runs it with, where the default ones take long.
    """
    _check_registered(defense, DEFENSES)
    changes = {"defense": {"kind": kind_of(defense), **(settings or {})}}
    trial = tiny_trial(changes)
    made = trial.defense
    provided: set[str] = set()
    for spec in stages_of(trial):
        missing = set(spec.needs) - provided
        assert not missing, f"stage `{spec.name}` needs {missing}, which no stage before it provides"
        provided |= set(spec.provides)
    knowing = [name for name in made.stages if stage_named(name).sees_poison]
    assert bool(knowing) is made.knows_poison, f"{knowing} see the poison, and `knows_poison` is {made.knows_poison}"
    for name in made.stages:
        check_stage(stage_named(name), trial)
    _check_runs(changes)


def check_detector(detector: type[Detector]) -> None:
    """Check that a detector trusts each screened pair by a finite number, the same each time."""
    _check_registered(detector, DETECTORS)
    changes = {"defense.detector": {"kind": kind_of(detector)}}
    stage = f"detect_{kind_of(detector)}"
    check_stage(stage_named(stage), tiny_trial(changes))
    found = _check_runs(changes)[stage]
    assert set(found) >= {"pairs", "trust"}, f"a detector puts out `pairs` and `trust`, not {sorted(found)}"
    pairs, trust = found["pairs"], found["trust"]
    assert pairs.dtype == torch.int64, f"`pairs` are {pairs.dtype}, not int64"
    assert trust.dtype == torch.float32, f"`trust` is {trust.dtype}, not float32"
    assert pairs.tolist() == sorted(set(pairs.tolist())), "`pairs` are not sorted, or not distinct"
    assert trust.shape == pairs.shape, "there is not one number for each pair"
    assert bool(torch.isfinite(trust).all()), "trust is not finite"


def check_metric(metric: type[Metric]) -> None:
    """Check that a metric is a stage of its own and the same each time."""
    _check_registered(metric, METRICS)
    changes = {"metrics": [{"kind": kind_of(metric)}]}
    check_stage(stage_named(kind_of(metric)), tiny_trial(changes))
    _check_runs(changes)


def check_data_source(source: DataSource) -> None:
    """Check that a data source, as configured, has classes, a key that is the same each time, and two splits."""
    _check_registered(type(source), DATA_SOURCES)
    assert content_key(source) == content_key(source), "the same content has two keys"
    classes = list(source.class_names())
    assert len(set(classes)) == len(classes), "two classes have one name"
    with tempfile.TemporaryDirectory() as cache:
        data = source.load(32, Path(cache))
        assert list(data.classes) == classes, "`class_names` and the loaded data differ"
        assert (data.pretrain is not None) is source.has_pretrain, "`has_pretrain` and the loaded data differ"
        for name, split in (("val", data.val), ("test", data.test)):
            images = np.asarray(split.images[:2])
            assert images.dtype == np.uint8, f"{name} images are {images.dtype}, not uint8"
            assert images.shape[1:] == (32, 32, 3), f"{name} images are {images.shape[1:]}"
            assert set(split.labels.tolist()) <= set(range(len(classes))), f"{name} has labels that are no class"
        assert data.train.files is None or len(data.train.files) == len(data.train), "not every pair's file has a name"
        assert data.train.take(np.array([0])).shape == (1, 32, 32, 3), "`train.take` returns no `[B, H, W, 3]`"


def check_stage(spec: StageSpec, trial: TrialConfig) -> None:
    """Check a stage's row: its functions, its settings in a trial that runs it, and what it is given."""
    run = imported(spec.run)
    assert run.__doc__, f"{spec.run} has no docstring: what does it return, of which shape?"
    assert list(inspect.signature(run).parameters) == ["context"], f"{spec.run} takes other arguments than `context`"
    if spec.diagnose:
        parameters = list(inspect.signature(imported(spec.diagnose)).parameters)
        assert parameters == ["context", "output", "manifest"], f"{spec.diagnose} takes {parameters}"
    if spec.observe:
        assert not spec.sees_poison, "what a defender sees is not seen through a context that knows the poison"
        parameters = list(inspect.signature(imported(spec.observe)).parameters)
        assert parameters == ["context"], f"{spec.observe} takes {parameters}"
    assert spec.version >= 1, "versions count from 1"
    assert spec.provides, "a stage that provides nothing is used by none"
    assert spec.sees_poison or MANIFEST not in spec.needs, "a stage of a defense is given the manifest"
    settings = spec.settings(trial)
    assert json.loads(json.dumps(settings)) == settings, "the settings are no plain JSON"
    fingerprint(settings)
    if spec.epochs:
        assert isinstance(settings[spec.epochs], int), f"`{spec.epochs}` counts no epochs"
    else:
        assert not spec.evaluates_each_epoch, "a stage whose epochs are evaluated says which setting counts them"


def _check_registered(item: type[Config], registry: Registry[Any]) -> None:
    kind = kind_of(item)
    assert registry.get(kind) is item, f"{registry.what} `{kind}` is another class: is it registered?"
    assert item.__doc__, f"{item.__name__} has no docstring: what is it, and where does it come from?"
    assert getattr(item, "label", ""), f"{item.__name__} has no `label`, which tables and figures show"
    for name, text in descriptions(item).items():
        assert name == "kind" or text, f"{item.__name__}.{name} is not described"


def _check_round_trip(made: Config, annotation: Any) -> None:  # noqa: ANN401 — a pydantic annotation
    from pydantic import TypeAdapter  # noqa: PLC0415

    again = TypeAdapter(annotation).validate_python(made.as_json())
    assert type(again) is type(made), f"read back, it is a {type(again).__name__}"
    assert again.as_json() == made.as_json(), "read back, its settings differ"


def _check_runs(changes: Mapping[str, Any]) -> dict[str, dict[str, torch.Tensor]]:
    """Run the tiny trial twice, check that both are done and equal, and return each stage's tensors."""
    with _victim() as one, _victim() as other:
        records = [run_tiny_trial(store, changes) for store in (one, other)]
        for record in records:
            assert record.state is State.DONE, f"the trial {record.state}: {record.reason}"
        first, second = ({s.stage: (s.key, s.diagnostics) for s in record.stages} for record in records)
        assert first == second, "two runs of the same trial differ"
        nodes = build_pipeline(tiny_trial(changes), 0)
        tensors = [
            {node.spec.name: _tensors(store, node.spec.name, node.key) for node in nodes} for store in (one, other)
        ]
    for stage, found in tensors[0].items():
        for name, tensor in found.items():
            message = f"`{name}` of stage `{stage}` differs between two runs"
            torch.testing.assert_close(tensor, tensors[1][stage][name], rtol=0, atol=0, equal_nan=True, msg=message)
    return tensors[0]


def _tensors(store: str, stage: str, key: str) -> dict[str, torch.Tensor]:
    opened = ArtifactStore(store)
    manifest = opened.manifest(stage, key)
    assert manifest is not None, f"stage `{stage}` published nothing"
    return decode(opened, manifest, TENSORS)


def _victim() -> tempfile.TemporaryDirectory[str]:
    """Return a new store that holds the tiny victim, which is trained once a process."""
    import shutil  # noqa: PLC0415

    folder = tempfile.TemporaryDirectory()
    shutil.copytree(_trained_victim().name, folder.name, dirs_exist_ok=True)
    return folder


@cache
def _trained_victim() -> tempfile.TemporaryDirectory[str]:
    folder = tempfile.TemporaryDirectory()
    run_tiny_trial(folder.name, {"defense": {"kind": "none"}})
    return folder


def _pictures(count: int, size_px: int) -> Images:
    return np.random.default_rng(0).integers(0, 256, size=(count, size_px, size_px, 3), dtype=np.uint8)
