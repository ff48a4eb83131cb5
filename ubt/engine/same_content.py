"""Is what a trial reads here, on this node, what the study was planned with? Loads no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ubt.artifacts.store import ArtifactStore
from ubt.common.errors import UnfitNode, UserError
from ubt.data import content_key
from ubt.data.base import DataSource
from ubt.data.content.compare import difference, first_difference
from ubt.data.content.index import Entry, decoded, encoded
from ubt.data.digests import digest_files, stamp_if_there
from ubt.engine.graph import Pipeline
from ubt.models.weight_files import described_by
from ubt.trials.assignment import Assignment, PlannedFile
from ubt.trials.config import TrialConfig
from ubt.trials.poison import GivenPoison, read_poison_list

# Where the study is planned


def keep_index(store: ArtifactStore, data: DataSource) -> None:
    """Write a data set's index into the store, where nodes that have other data find out in which row.

    Raises:
        UserError: if the data cannot be read, or the store not be written.
    """
    key = content_key(data)
    if not store.has_index(key) and (index := encoded(data.contents())):
        store.keep_index(key, index)


def planned_files(trial: TrialConfig, plugins: Sequence[str] = ()) -> tuple[PlannedFile, ...]:
    """Return the files beside its data that a trial reads, as they are now: weights, triggers, lists, plug-ins.

    Raises:
        UserError: if one cannot be read.
    """
    found = _files(trial)
    found.update({f"plugins: {plugin}": Path(plugin) for plugin in plugins if plugin.endswith(".py")})
    return tuple(
        PlannedFile(where=where, path=str(path), size_bytes=path.stat().st_size, sha256=_digest(path))
        for where, path in found.items()
    )


def _files(trial: TrialConfig) -> dict[str, Path]:
    """Return the files that a trial names, by the settings that name them."""
    victim = trial.victim
    given: dict[str, Path | None] = {
        "victim.model": victim.model.weights_file,
        "victim.implant.checkpoint": victim.implant.checkpoint,
    }
    if victim.model.folder:
        given.update({f"victim.model: {path.name}": path for path in described_by(victim.model.folder)})
    if victim.attack:
        given.update({f"victim.attack.{name}": path for name, path in victim.attack.files().items()})
    if isinstance(victim.poisoning, GivenPoison) and victim.poisoning.manifest:
        given["victim.poison.manifest"] = victim.poisoning.manifest
        given["victim.poison.manifest: trigger"] = read_poison_list(victim.poisoning.manifest).trigger
    return {where: path for where, path in given.items() if path is not None}


# Where it is run


def check_files(assignment: Assignment, node: str) -> None:
    """Check the files that a trial reads beside its data. Before plug-ins are imported: they are among them.

    Raises:
        UnfitNode: naming the first that is another one here.
    """
    for planned in assignment.files:
        stamp = stamp_if_there(Path(planned.path))
        study = Entry(planned.where, planned.path, planned.size_bytes, planned.sha256)
        here = Entry(planned.where, planned.path)
        if stamp is not None:
            same_size = stamp[1] == planned.size_bytes  # else there is no need to read it
            here = replace(here, size_bytes=stamp[1], sha256=_digest(Path(planned.path)) if same_size else "")
        if not study.same(here):
            raise _differs(node, str(difference(study, here)))


def check_data(data: DataSource, assignment: Assignment, node: str) -> None:
    """Check the data set by its key. Files that have not changed since they were read last are not read.

    Raises:
        UnfitNode: naming the first row that is another one here.
    """
    try:
        key = content_key(data)
    except UserError as error:  # where the study was planned it could be read
        key, reason = "", str(error)
    else:
        reason = (
            "its files are the same, but here they are read otherwise: is the same version of ubt and Pillow there?"
        )
    if key != assignment.data_key:
        raise _differs(node, _first_row(data, assignment) or reason)


def _first_row(data: DataSource, assignment: Assignment) -> str:
    """Return in words which row differs first; nothing if none does."""
    try:
        index = ArtifactStore(assignment.store).index(assignment.data_key)
        if index is None:
            return (
                f"the data's key is another one, and in which row it differs the store {assignment.store} does not say"
            )
        found = first_difference(decoded(index), data.contents())
    except (OSError, ValueError) as error:
        return f"the data's key is another one, and in which row it differs cannot be told: {error}"
    return "" if found is None else str(found)


def check_keys(pipeline: Pipeline, assignment: Assignment, node: str) -> None:
    """Check that the stages are those that were planned: what no file shows, as other versions, shows in their keys.

    Raises:
        UnfitNode: naming the first stage that is another one here.
    """
    for stage, planned in zip(pipeline, assignment.keys, strict=False):
        if stage.key != planned:
            raise _differs(node, f"stage {stage.spec.name} has the key {stage.key} here, and {planned} in the study")


def _differs(node: str, difference: str) -> UnfitNode:
    return UnfitNode(f"node {node} has other content than the study was planned with: {difference}")


def _digest(path: Path) -> str:
    return digest_files([path], path.name)
