"""Artifacts with tensors: encoded as safetensors, models as differences from the model they were made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from ubt.artifacts.manifest import ArtifactManifest
from ubt.artifacts.store import ArtifactStore
from ubt.common.errors import DamagedArtifact
from ubt.models.clip import State

TENSORS, MODEL, OPTIMIZER = "tensors", "model", "optimizer"


@dataclass(frozen=True)
class Artifact:
    """A published result: its description, its tensors, and whole weights if it is a model."""

    manifest: ArtifactManifest
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    model: State | None = None

    @property
    def weights(self) -> State:
        """Return the model's weights; `ValueError` if the artifact is no model."""
        if self.model is None:
            raise ValueError(f"{self.manifest.stage} {self.manifest.key} is no model")
        return self.model

    @property
    def size_bytes(self) -> int:
        """Return how much memory the tensors take."""
        parts = [*self.tensors.values(), *(self.model or {}).values()]
        return sum(tensor.numel() * tensor.element_size() for tensor in parts)


def encode(tensors: Mapping[str, Tensor]) -> bytes:
    """Return tensors as safetensors."""
    return save({name: value.detach().cpu().contiguous() for name, value in tensors.items()})


def decode(store: ArtifactStore, manifest: ArtifactManifest, payload: str) -> dict[str, Tensor]:
    """Return a payload's tensors; {} if the artifact has none of that name.

    Raises:
        DamagedArtifact: if the payload is missing or altered; the artifact has then been set aside.
    """
    if payload not in manifest.payloads:
        return {}
    try:
        return load(store.read(manifest, payload))
    except (SafetensorError, ValueError, KeyError) as error:  # the latter for types and shapes that torch has not
        store.set_aside(manifest)
        raise DamagedArtifact(f"{manifest.stage} {manifest.key}: {payload} is no safetensors file") from error


def read_artifact(
    store: ArtifactStore, manifest: ArtifactManifest, base_of: Callable[[str, str], Artifact | None]
) -> Artifact:
    """Return an artifact with its tensors and, if it is a model, its whole weights.

    `base_of(stage, key)` returns the artifact that a model is stored as a difference from, None if it is not there.

    Raises:
        DamagedArtifact: if a payload or the base is missing or altered; the artifact has then been set aside.
    """
    tensors, model = decode(store, manifest, TENSORS), decode(store, manifest, MODEL)
    if MODEL not in manifest.payloads:
        return Artifact(manifest, tensors)
    if manifest.base is None:
        return Artifact(manifest, tensors, model)
    stage, _, key = manifest.base.partition("/")
    base = base_of(stage, key)
    if base is None or base.model is None or base.manifest.payloads[MODEL].sha256 != manifest.base_sha256:
        store.set_aside(manifest)
        raise DamagedArtifact(
            f"{manifest.stage} {manifest.key}: the model it differs from, {manifest.base}, is gone or another"
        )
    return Artifact(manifest, tensors, overlay(model, base.weights))


def load_artifact(store: ArtifactStore, stage: str, key: str) -> Artifact | None:
    """Return one artifact of a store by itself; None if it is not there. A `Workspace` keeps what it has read.

    Raises:
        DamagedArtifact: as `read_artifact`.
    """
    manifest = store.manifest(stage, key)
    if manifest is None:
        return None
    return read_artifact(store, manifest, lambda stage, key: load_artifact(store, stage, key))


def changed(model: State, base: State | None) -> State:
    """Return the tensors of `model` that differ from `base`: fine-tuning leaves many as they were."""
    if base is None:
        return model
    return {name: value for name, value in model.items() if name not in base or not _same_bits(value, base[name])}


def overlay(difference: State, base: State | None) -> dict[str, Tensor]:
    """Return the whole model that `changed` was computed from."""
    return {**(base or {}), **difference}


def _same_bits(one: Tensor, other: Tensor) -> bool:
    """Return whether two tensors are the same to the bit; `torch.equal` takes −0 for 0 and disregards the type."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    first, second = (tensor.contiguous().view(-1).view(torch.uint8) for tensor in (one, other))
    return torch.equal(first, second)
