"""Artifacts with tensors: encoded as safetensors, models as differences from the model they were made from."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from ubt.artifacts.manifest import ArtifactManifest
from ubt.artifacts.payloads import Part
from ubt.artifacts.store import ArtifactStore
from ubt.common.errors import DamagedArtifact
from ubt.models.clip import State

_DTYPES = {
    torch.int64: "I64",
    torch.float64: "F64",
    torch.float32: "F32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.uint16: "U16",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""What safetensors calls types, in the order in which it lays them out."""
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


def encode(tensors: Mapping[str, Tensor]) -> Sequence[Part]:
    """Return tensors as safetensors, byte for byte as its `save` does, which would copy them all: header, then each.

    On the CPU the parts are the tensors' own memory: they must not change before the parts are written.
    """
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    if any(value.dtype not in _DTYPES for value in plain.values()):
        return (save(plain),)
    ranks = {dtype: rank for rank, dtype in enumerate(_DTYPES)}
    ordered = sorted(plain.items(), key=lambda item: (ranks[item[1].dtype], item[0].encode()))
    header, end = {}, 0
    for name, value in ordered:
        start, end = end, end + value.nbytes
        header[name] = {"dtype": _DTYPES[value.dtype], "shape": list(value.shape), "data_offsets": [start, end]}
    described = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    described += b" " * (-len(described) % 8)
    return (len(described).to_bytes(8, "little") + described, *(_memory(value) for _, value in ordered))


def _memory(tensor: Tensor) -> memoryview:
    """Return the bytes of a contiguous tensor on the CPU, not copied."""
    # `bytes` of nothing, as a view of no elements has no type to be cast from.
    return memoryview(tensor.view(-1).view(torch.uint8).numpy().data) if tensor.numel() else memoryview(b"")


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
    if base is None or base.model is None or base.manifest.payloads[MODEL].checksum != manifest.base_checksum:
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
