"""What a worker keeps in memory between trials."""

from mmap import mmap

import numpy as np
import pytest
import torch
from tiny_victim import tiny_trial

from ubt.artifacts.codec import TENSORS, Artifact, encode
from ubt.artifacts.manifest import ArtifactManifest
from ubt.artifacts.store import ArtifactStore
from ubt.engine.graph import build_pipeline
from ubt.engine.workspace import Workspace, memory_limit_bytes

CPU = torch.device("cpu")


def a_workspace(root, changes=None):
    victim = tiny_trial(changes).victim
    return Workspace(victim.data, victim.model, CPU, ArtifactStore(root), root / "images")


@pytest.fixture
def empty(tmp_path, workspace, monkeypatch):
    """A workspace on an empty store, sharing the data and the model of the tiny one."""
    monkeypatch.setattr("ubt.engine.workspace.build_clip", lambda *_, **__: workspace.clip)
    return a_workspace(tmp_path)


def described(key, stage="suspect"):
    return ArtifactManifest(stage=stage, key=key, version=1, seed=0, settings={}, inputs={})


def publish(workspace, key, value=1.0):
    tensors = {"x": torch.tensor([value])}
    return workspace.store.publish(described(key), {TENSORS: encode(tensors)})


def test_an_artifact_is_read_once(empty, monkeypatch):
    publish(empty, "a")
    first = empty.load("suspect", "a")
    monkeypatch.setattr(ArtifactStore, "read", lambda *_: pytest.fail("read again"))
    assert empty.load("suspect", "a") is first
    assert empty.manifest("suspect", "a") == first.manifest


def test_what_is_made_here_need_not_be_read_back(empty):
    artifact = Artifact(publish(empty, "a"), {"x": torch.tensor([2.0])})
    empty.remember(artifact)
    assert empty.load("suspect", "a") is artifact


def test_what_the_store_does_not_have_is_none(empty):
    assert empty.load("suspect", "a") is None
    assert empty.manifest("suspect", "a") is None


def test_the_artifacts_used_longest_ago_are_forgotten_when_memory_is_full(empty, monkeypatch):
    monkeypatch.setattr(empty, "_memory_limit_bytes", 2 * 4)
    for key in "abc":
        publish(empty, key)
    a, b = empty.load("suspect", "a"), empty.load("suspect", "b")
    assert empty.load("suspect", "a") is a
    empty.load("suspect", "c")
    assert empty.load("suspect", "a") is a, "used lately"
    assert empty.load("suspect", "b") is not b, "read again"


def test_a_worker_keeps_artifacts_in_a_quarter_of_its_share_of_the_machine(monkeypatch):
    monkeypatch.setattr("ubt.engine.workspace.memory_bytes", lambda: 512 << 30)
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    assert memory_limit_bytes(8) == 16 << 30
    assert memory_limit_bytes(1) == 2 << 30
    assert memory_limit_bytes(128) == 128 << 30


def test_one_artifact_is_kept_however_large(empty, monkeypatch):
    monkeypatch.setattr(empty, "_memory_limit_bytes", 0)
    publish(empty, "a")
    assert empty.load("suspect", "a") is empty.load("suspect", "a")


@pytest.mark.parametrize(
    ("changes", "fits"),
    [
        ({}, True),
        ({"victim.attack.target": "boat", "victim.implant.min_asr": 0.9}, True),
        ({"victim.pretrain.epochs": 9}, True),
        ({"victim.data.noise": 1.0}, False),
        ({"victim.model.precision": "bfloat16"}, False),
    ],
)
def test_a_trial_fits_if_data_and_model_are_the_same(workspace, changes, fits):
    victim = tiny_trial(changes).victim
    assert workspace.fits(victim.data, victim.model, CPU) is fits


def test_a_trial_of_another_device_does_not_fit(workspace):
    victim = tiny_trial().victim
    assert not workspace.fits(victim.data, victim.model, torch.device("meta"))


def test_nothing_is_fetched_or_loaded_to_prepare_a_workspace(tmp_path, monkeypatch, workspace):
    built = []
    monkeypatch.setattr(
        "ubt.engine.workspace.build_clip", lambda _, **given: built.append(given["weights"]) or workspace.clip
    )
    a_workspace(tmp_path, {"victim.model.checkpoint": "/not/there.pt"})
    assert built == [False]


def test_each_attack_gets_pairs_tokens_and_evaluator_of_its_own(bench):
    workspace = bench.workspace
    one, other = (
        bench.artifact("poison"),
        bench.artifact("poison", {"victim.attack.target": "boat", "victim.attack.trigger_seed": 5}),
    )
    everything = np.arange(200)
    found = {}
    for artifact in (one, other, one):
        pairs, tokens = workspace.pairs(artifact), workspace.pair_tokens(artifact)
        evaluator = workspace.evaluator(artifact)
        assert workspace.pairs(artifact) is pairs
        assert workspace.evaluator(artifact) is evaluator
        result = (
            pairs.take(everything).tobytes(),
            tokens[:].numpy().tobytes(),
            evaluator.shown(workspace.clip, "val").target,
        )
        assert found.setdefault(artifact.manifest.key, result) == result
    first, second = found.values()
    assert all(a != b for a, b in zip(first, second, strict=True))


def test_a_model_stored_as_a_difference_is_read_back_whole(tiny_run, workspace):
    nodes = {node.spec.name: node for node in build_pipeline(tiny_trial(), 0)}
    fresh = a_workspace(tiny_run.root)
    unlearned = fresh.load("unlearn", nodes["unlearn"].key)
    implanted = fresh.load("implant", nodes["implant"].key)
    assert unlearned.manifest.base == f"implant/{nodes['implant'].key}"
    assert unlearned.weights.keys() == implanted.weights.keys()
    assert unlearned.manifest.payloads["model"].size_bytes < 0.5 * implanted.manifest.payloads["model"].size_bytes
    assert torch.equal(unlearned.weights["token_embedding.weight"], implanted.weights["token_embedding.weight"])
    assert not torch.equal(
        unlearned.weights["visual.attnpool.c_proj.weight"], implanted.weights["visual.attnpool.c_proj.weight"]
    )


def test_kept_tokens_are_those_that_a_tokenizer_gives(empty, tmp_path, monkeypatch):
    clean = list(empty.data.train.captions)
    poisoned = ["a photo of a banana", *clean[1:]]
    expected = empty.clip.tokenize(poisoned)
    assert torch.equal(empty._tokens_of(poisoned)[:], expected)
    monkeypatch.setattr("ubt.engine.workspace.FEW", 1)
    for _ in range(2):
        found = empty._tokens_of(poisoned)[:]
        assert torch.equal(found, expected)
        assert found.dtype == expected.dtype
    assert torch.equal(empty._tokens_of(clean)[:], empty.clip.tokenize(clean)), "what is kept is not written to"
    assert list(empty._image_cache.glob("captions-*.npy"))


def test_no_attribute_of_tokens_leads_to_the_file_of_the_clean_ones(empty, monkeypatch):
    """A stage that knows it could compare: what differs is poisoned."""
    monkeypatch.setattr("ubt.engine.workspace.FEW", 1)
    poisoned = ["a photo of a banana", *empty.data.train.captions[1:]]
    held = [empty._tokens_of(poisoned)._kept]
    while (base := getattr(held[-1], "base", None)) is not None or isinstance(held[-1], memoryview):
        held.append(held[-1].obj if isinstance(held[-1], memoryview) else base)
    assert isinstance(held[-1], mmap)
    assert not [one for one in held if hasattr(one, "filename") or hasattr(one, "name")]
