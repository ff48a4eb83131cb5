"""Artifacts of a run's stages, read from the store that the run names: what figures of pairs are drawn from.

Loads no torch. The store is read only when a figure asks for something: records alone suffice for all else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from numpy.typing import NDArray
from pydantic import JsonValue
from safetensors import SafetensorError

from analysis.run import Run
from ubt.artifacts.manifest import ArtifactManifest
from ubt.artifacts.store import ArtifactStore, default_store
from ubt.common.errors import DamagedArtifact, UserError
from ubt.trials.record import StageRecord, TrialRecord

TENSORS = "tensors"
ANEW = "run the study under another --name to compute it anew"

Array = NDArray[Any]


class Unreadable(Exception):
    """An artifact cannot be had; says which, why, and what to do, in one sentence."""


@dataclass(frozen=True)
class StageArtifact:
    """What one stage of one trial left: its settings and facts, and its tensors as arrays."""

    told: str
    """Which artifact this is, to begin a message with."""
    manifest: ArtifactManifest
    tensors: Mapping[str, Array]

    def tensor(self, name: str) -> Array:
        """Return one tensor.

        Raises:
            Unreadable: if the artifact has none of that name: another version of the stage made it.
        """
        if name not in self.tensors:
            raise Unreadable(f"{self.told} has no tensor `{name}`: it was made by an older version; {ANEW}")
        return self.tensors[name]

    def fact(self, name: str) -> JsonValue:
        """Return one fact.

        Raises:
            Unreadable: if the artifact has none of that name: another version of the stage made it.
        """
        if name not in self.manifest.facts:
            raise Unreadable(f"{self.told} has no `{name}`: it was made by an older version; {ANEW}")
        return self.manifest.facts[name]


class Artifacts:
    """The store of a run, to read from."""

    def __init__(self, root: str) -> None:
        self.root = root

    @classmethod
    def of(cls, run: Run) -> Artifacts:
        """Return the store that a run names, or the default one."""
        return cls(run.store or default_store())

    def read(self, record: TrialRecord, stage: str) -> StageArtifact:
        """Return what a stage of a trial left.

        Raises:
            Unreadable: if the artifact, or the whole store, is missing or damaged.
        """
        done = stage_of(record, stage)
        if done is None:
            raise Unreadable(f"{record.trial} has no finished stage `{stage}`")
        told = f"The artifact `{stage}` of {record.trial} ({done.key})"
        try:
            return self._read(told, done)
        except UserError as error:
            problem = error.problems[0]
            raise Unreadable(f"{told} cannot be read: {problem.where} {problem.message}") from error

    def _read(self, told: str, done: StageRecord) -> StageArtifact:
        manifest = self._store.manifest(done.stage, done.key)
        if manifest is None:
            raise Unreadable(f"{told} is not in the store {self.root}: it was pruned or set aside; {ANEW}")
        try:
            return StageArtifact(told, manifest, _tensors(self._store, manifest))
        except DamagedArtifact as error:
            raise Unreadable(f"{told} is damaged and was set aside; {ANEW}") from error

    @cached_property
    def _store(self) -> ArtifactStore:
        return ArtifactStore(self.root)


def stage_of(record: TrialRecord, stage: str) -> StageRecord | None:
    """Return what a trial's record says of a finished stage; None if the trial has not finished it."""
    return next((done for done in record.stages if done.stage == stage and done.complete), None)


def _tensors(store: ArtifactStore, manifest: ArtifactManifest) -> dict[str, Array]:
    """Return the tensors of an artifact as arrays; `DamagedArtifact` like the codec, which loads torch."""
    from safetensors.numpy import load  # noqa: PLC0415 — only figures of pairs need it

    if TENSORS not in manifest.payloads:
        return {}
    try:
        return load(store.read(manifest, TENSORS))
    except SafetensorError as error:
        store.set_aside(manifest)
        raise DamagedArtifact(f"{manifest.stage} {manifest.key}: {TENSORS} is no safetensors file") from error
