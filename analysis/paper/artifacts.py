"""What figures of pairs are drawn from: artifacts of a run's stages, and which trials they are taken of.

Artifacts are read from the store that the run names, without torch, and only when a figure asks for them: records alone
suffice for all else. Of trials, the chosen and the base come before others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue
from safetensors import SafetensorError

from analysis.comparison.members import is_for_table
from analysis.findings import Findings
from analysis.formatting import victim_key, victim_names
from analysis.paper.density import Separation, Values
from analysis.records import RunRecords
from analysis.tables import setting
from ubt.artifacts.manifest import ArtifactManifest
from ubt.artifacts.store import ArtifactStore, default_store
from ubt.common.errors import DamagedArtifact, UserError
from ubt.trials.record import StageRecord, State, TrialRecord

TENSORS = "tensors"
ANEW = "run the study under another --name to compute it anew"

Array = NDArray[Any]


class Unreadable(Exception):
    """An artifact cannot be read; says which, why, and what to do, in one sentence."""


@dataclass(frozen=True)
class StageArtifact:
    """The artifact of one stage of one trial: its settings and facts, and its tensors as arrays."""

    title: str
    """Which artifact this is, to begin a message with."""
    manifest: ArtifactManifest
    tensors: Mapping[str, Array]

    def tensor(self, name: str) -> Array:
        """Return one tensor.

        Raises:
            Unreadable: if the artifact has none of that name: another version of the stage made it.
        """
        if name not in self.tensors:
            raise Unreadable(f"{self.title} has no tensor `{name}`: it was made by an older version; {ANEW}")
        return self.tensors[name]

    def fact(self, name: str) -> JsonValue:
        """Return one fact.

        Raises:
            Unreadable: if the artifact has none of that name: another version of the stage made it.
        """
        if name not in self.manifest.facts:
            raise Unreadable(f"{self.title} has no `{name}`: it was made by an older version; {ANEW}")
        return self.manifest.facts[name]


class Artifacts:
    """The store of a run, to read from."""

    def __init__(self, root: str) -> None:
        self.root = root

    @classmethod
    def of(cls, run: RunRecords) -> Artifacts:
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
        title = f"The artifact `{stage}` of {record.trial} ({done.key})"
        try:
            return self._read(title, done)
        except UserError as error:
            problem = error.problems[0]
            raise Unreadable(f"{title} cannot be read: {problem.where} {problem.message}") from error

    def _read(self, title: str, done: StageRecord) -> StageArtifact:
        manifest = self._store.manifest(done.stage, done.key)
        if manifest is None:
            raise Unreadable(f"{title} is not in the store {self.root}: it was pruned or set aside; {ANEW}")
        try:
            return StageArtifact(title, manifest, _tensors(self._store, manifest))
        except DamagedArtifact as error:
            raise Unreadable(f"{title} is damaged and was set aside; {ANEW}") from error

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


Wanted = Callable[[TrialRecord], bool]


def matching(findings: Findings, wanted: Wanted) -> tuple[TrialRecord, ...]:
    """Return the DONE trials that are wanted, those that stand for the run first."""

    def rank(record: TrialRecord) -> tuple[bool, bool, bool, int]:
        return (
            findings.roles.get(record.trial) != "chosen",
            not is_for_table(record),
            bool(record.changes),
            record.number,
        )

    done = (record for record in findings.run.records if record.state is State.DONE)
    return tuple(sorted(filter(wanted, done), key=rank))


def overfits_on(data: str) -> Wanted:
    """Return a test for trials that overfitted the poisoned model to `suspicious` pairs, or to `all`."""

    def test(record: TrialRecord) -> bool:
        trained = setting(record, "defense.overfit_epochs") != 0
        return trained and stage_of(record, "overfit") is not None and setting(record, "defense.overfit_data") == data

    return test


def has_stage(stage: str) -> Wanted:
    """Return a test for trials that ran a stage."""
    return lambda record: stage_of(record, stage) is not None


def by_victim(findings: Findings, *groups: Iterable[TrialRecord]) -> dict[str, tuple[TrialRecord | None, ...]]:
    """Return for each victim's name the first trial of each group on it, None where a group has none."""
    found: dict[str, list[TrialRecord | None]] = {}
    for position, records in enumerate(groups):
        for record in records:
            places = found.setdefault(victim_key(record), [None] * len(groups))
            places[position] = places[position] or record
    names = victim_names(findings.run.records)
    return {name: tuple(found[victim]) for victim, name in names.items() if victim in found}


def poisoned_pairs(artifacts: Artifacts, record: TrialRecord) -> Values:
    """Return the positions of the poisoned pairs in D, `[P]` int64.

    Raises:
        Unreadable: if the artifact is, or if it is not known which pairs are poisoned.
    """
    indices = artifacts.read(record, "poison").tensor("indices")
    if len(indices) == 0:
        raise Unreadable(f"{record.trial} was given a victim that came poisoned: which pairs are is not known")
    return indices


def overfitted_suspects(artifacts: Artifacts, record: TrialRecord) -> Separation:
    """Return the suspects of a trial of UBT under the overfitted model.

    Raises:
        Unreadable: if an artifact is.
    """
    overfit = artifacts.read(record, "overfit")
    suspects = artifacts.read(record, "suspect").tensor("indices")
    return Separation(
        similarities=overfit.tensor("similarities"),
        poisoned=np.isin(suspects, poisoned_pairs(artifacts, record)),
        before=overfit.tensors.get("similarities_before"),
    )


def overfitted_pairs(artifacts: Artifacts, record: TrialRecord) -> Separation:
    """Return all pairs of D under a model that was overfitted to all of them.

    Raises:
        Unreadable: if an artifact is.
    """
    return _all_pairs(artifacts, record, artifacts.read(record, "overfit").tensor("all_similarities"))


def isolated_pairs(artifacts: Artifacts, record: TrialRecord) -> Separation:
    """Return all pairs of D under the model by which ABL isolates some, and how well its own sign does.

    Raises:
        Unreadable: if an artifact is.
    """
    by, ranked = setting(record, "defense.isolate_by"), stage_of(record, "rank")
    own = ranked.diagnostics.get(f"auroc_{by}") if ranked and by != "similarity" else None
    similarities = artifacts.read(record, "isolate").tensor("similarities")
    return _all_pairs(artifacts, record, similarities, "" if own is None else f"({own:.3f} by {by})")


def _all_pairs(artifacts: Artifacts, record: TrialRecord, similarities: Values, remark: str = "") -> Separation:
    marks = np.isin(np.arange(len(similarities)), poisoned_pairs(artifacts, record))
    return Separation(similarities, marks, remark=remark)
