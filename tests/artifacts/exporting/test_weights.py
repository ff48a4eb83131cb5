"""Whole weights put together from differences without looking into them: what torch reads of them, to the bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from ubt.artifacts.codec import MODEL, encode
from ubt.artifacts.exporting.weights import MODEL as PAYLOAD
from ubt.artifacts.exporting.weights import chain_of, size_of, write_weights
from ubt.artifacts.manifest import ArtifactManifest
from ubt.artifacts.store import ArtifactStore
from ubt.common.errors import DamagedArtifact
from ubt.models.clip import same_state

CLEAN = {"head": torch.tensor([1.0, -0.0]), "body": torch.ones(2, 3, dtype=torch.bfloat16), "n": torch.tensor(3)}
POISONED = {"head": torch.tensor([2.0, 5.0])}
DEFENDED = {"body": torch.full((2, 3), 0.5, dtype=torch.bfloat16), "more": torch.tensor([True, False])}


def published(store: ArtifactStore, stage: str, tensors: dict, base: ArtifactManifest | None = None, payload=MODEL):
    given = {} if base is None else {"base": f"{base.stage}/{base.key}", "base_checksum": base.payloads[MODEL].checksum}
    manifest = ArtifactManifest(stage=stage, key=stage[0] * 32, version=1, seed=0, settings={}, inputs={}, **given)
    return store.publish(manifest, {payload: encode(tensors)})


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    """Holds three models, each but the first as a difference from the one before."""
    store = ArtifactStore(str(tmp_path / "store"))
    clean = published(store, "pretrain", CLEAN)
    published(store, "unlearn", DEFENDED, base=published(store, "implant", POISONED, base=clean))
    return store


def test_the_payload_s_name_is_the_codec_s() -> None:
    assert PAYLOAD == MODEL


def test_a_chain_of_differences_becomes_whole_weights(store: ArtifactStore, tmp_path: Path) -> None:
    chain = chain_of(store, "unlearn", "u" * 32)
    assert [manifest.stage for manifest in chain] == ["pretrain", "implant", "unlearn"]
    assert size_of(chain) > 0
    write_weights(store, chain, tmp_path / "it.safetensors", {"model": "tiny-rn", "format": "pt"})
    assert same_state(load_file(tmp_path / "it.safetensors"), {**CLEAN, **POISONED, **DEFENDED})
    with safe_open(tmp_path / "it.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt", "model": "tiny-rn"}


def test_a_chain_that_is_not_all_there_is_none(store: ArtifactStore) -> None:
    assert chain_of(store, "unlearn", "0" * 32) == ()
    published(store, "implant", {"head": torch.tensor([9.0])}, base=store.manifest("pretrain", "p" * 32))
    assert chain_of(store, "unlearn", "u" * 32) == (), "what it differs from is another model now"


def test_what_is_no_model_has_no_chain(store: ArtifactStore) -> None:
    published(store, "detect", {"scores": torch.ones(2)}, payload="tensors")
    assert chain_of(store, "detect", "d" * 32) == ()


def test_what_is_damaged_meanwhile_leaves_no_file(store: ArtifactStore, tmp_path: Path) -> None:
    chain = chain_of(store, "unlearn", "u" * 32)
    (weights,) = (tmp_path / "store").rglob(f"{'u' * 32}/{MODEL}-*")
    weights.write_bytes(b"spoilt")
    with pytest.raises(DamagedArtifact):
        write_weights(store, chain, tmp_path / "it.safetensors", {})
    assert not (tmp_path / "it.safetensors").exists()
