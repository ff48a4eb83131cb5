"""A stored model's whole weights as one safetensors file, bit for bit as they are in the store. Loads no torch.

In the store a model is a difference from the one it was made from. A safetensors file is a header in JSON and the
tensors' bytes after it, so differences can be put together without looking into them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ubt.artifacts.manifest import ArtifactManifest
from ubt.artifacts.store import ArtifactStore
from ubt.common.atomic_files import whole_file
from ubt.common.errors import DamagedArtifact

MODEL = "model"
"""Name of the payload that is a model; also `ubt.artifacts.codec.MODEL`, in a module that loads torch."""

_Tensor = tuple[dict[str, Any], memoryview]


def chain_of(store: ArtifactStore, stage: str, key: str) -> tuple[ArtifactManifest, ...]:
    """Return the artifacts that a model is put together from, the first one whole; none if it is not all there."""
    chain: list[ArtifactManifest] = []
    at: str | None = f"{stage}/{key}"
    while at is not None:
        name, _, its_key = at.partition("/")
        manifest = store.manifest(name, its_key)
        if manifest is None or MODEL not in manifest.payloads:
            return ()
        if chain and manifest.payloads[MODEL].checksum != chain[0].base_checksum:
            return ()
        chain.insert(0, manifest)
        at = manifest.base
    return tuple(chain)


def size_of(chain: tuple[ArtifactManifest, ...]) -> int:
    """Return about how many bytes the whole weights take: those of the first artifact, and at most of the others."""
    return max((manifest.payloads[MODEL].size_bytes for manifest in chain), default=0)


def write_weights(
    store: ArtifactStore, chain: tuple[ArtifactManifest, ...], path: Path, metadata: Mapping[str, str]
) -> None:
    """Write the whole weights to `path`, whole or not at all.

    Raises:
        DamagedArtifact: if an artifact is missing by now, or altered.
        OSError: if the disk is full or not writable.
    """
    tensors: dict[str, _Tensor] = {}
    for manifest in chain:
        tensors |= dict(_tensors(store.read(manifest, MODEL), manifest))
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))}
    at = 0
    for name, (said, content) in sorted(tensors.items()):
        header[name] = {**said, "data_offsets": [at, at + len(content)]}
        at += len(content)
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of eight bytes
    with whole_file(path) as unfinished, unfinished.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for _, (_, content) in sorted(tensors.items()):
            stream.write(content)


def _tensors(payload: bytes, manifest: ArtifactManifest) -> Iterator[tuple[str, _Tensor]]:
    """Yield the name of each tensor with what the header says of it, and its bytes."""
    try:
        begin = 8 + int.from_bytes(payload[:8], "little")
        header: dict[str, dict[str, Any]] = json.loads(payload[8:begin])
        header.pop("__metadata__", None)
        for name, said in header.items():
            first, end = said["data_offsets"]
            kept = {"dtype": said["dtype"], "shape": said["shape"]}
            yield name, (kept, memoryview(payload)[begin + first : begin + end])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedArtifact(f"{manifest.stage} {manifest.key}: {MODEL} is no safetensors file") from error
