"""Is what a trial reads here, on this node, what the study was planned with? Loads no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ubt.artifacts.store import ArtifactStore
from ubt.common.atomic_files import write_whole
from ubt.common.errors import UserError
from ubt.common.registry import load_plugins
from ubt.data import content_key
from ubt.data.base import DataSource
from ubt.data.content.compare import difference, first_difference
from ubt.data.content.index import Entry, decoded, encoded
from ubt.data.csv import PairFiles
from ubt.data.digests import digest_files, stamp_if_there
from ubt.engine.graph import Pipeline, build_pipeline
from ubt.models.weight_files import described_by
from ubt.trials.assignment import Assignment, PlannedFile
from ubt.trials.config import TrialConfig
from ubt.trials.poison import GivenPoison, read_poison_list


def share_facts(store: ArtifactStore, data: DataSource) -> None:
    """Have machines that share a store read what lies at addresses once between them, to know what is in it.

    Raises:
        UserError: if it cannot be looked at.
        UnusableStore: if the store cannot be used.
        OSError: if this machine's cache cannot be written.
    """
    facts = data.shared_facts()
    if facts is None:
        return
    if not facts.is_file():
        if known := store.index(facts.stem):
            write_whole(facts, known, lasting=True)
    elif not store.has_index(facts.stem):
        store.keep_index(facts.stem, facts.read_bytes())


# Where the study is planned


def keep_index(store: ArtifactStore, data: DataSource) -> None:
    """Write a data set's index into the store, where nodes that have other data find out in which row.

    Raises:
        UserError: if the data cannot be read, or the store not be written.
    """
    share_facts(store, data)
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
    poison = victim.poisoning
    if isinstance(poison, GivenPoison) and poison.manifest:
        given["victim.poison.manifest"] = poison.manifest
        given["victim.poison.manifest: trigger"] = read_poison_list(poison.manifest).trigger
    if isinstance(poison, GivenPoison) and poison.known and isinstance(victim.data, PairFiles):
        given["victim.data.pairs"] = victim.data.pairs  # has the names of images, by which the poison is known
    return {where: path for where, path in given.items() if path is not None}


# Where it is run


def files_differ(assignment: Assignment) -> str:
    """Return in words which file, of those that a trial reads beside its data, is another one here; nothing if none is.

    Asked before plug-ins are imported, which are among them.
    """
    for planned in assignment.files:
        stamp = stamp_if_there(Path(planned.path))
        study = Entry(planned.where, planned.path, planned.size_bytes, planned.sha256)
        here = Entry(planned.where, planned.path)
        if stamp is not None:
            same_size = stamp[1] == planned.size_bytes  # else there is no need to read it
            here = replace(here, size_bytes=stamp[1], sha256=_digest(Path(planned.path)) if same_size else "")
        if not study.same(here):
            return str(difference(study, here))
    return ""


def data_differs(data: DataSource, assignment: Assignment) -> str:
    """Return in words which row of the data set is another one here; nothing if none is.

    The data is known by its key. Files that have not changed since they were read last are not read.
    """
    try:
        share_facts(ArtifactStore(assignment.store), data)
        if content_key(data) == assignment.data_key:
            return ""
        reason = "its files are the same, but read otherwise here: are the versions of ubt and Pillow the same?"
    except UserError as error:  # where the study was planned it could be read
        reason = str(error)
    return _first_row(data, assignment) or reason


def _first_row(data: DataSource, assignment: Assignment) -> str:
    """Return in words which row differs first; nothing if none does."""
    unknown = "the data differs, and in which row it does"
    try:
        index = ArtifactStore(assignment.store).index(assignment.data_key)
        if index is None:
            return f"{unknown}, the store {assignment.store} does not say"
        found = first_difference(decoded(index), data.contents())
    except (OSError, ValueError) as error:
        return f"{unknown}, cannot be told: {error}"
    return "" if found is None else str(found)


def keys_differ(pipeline: Pipeline, assignment: Assignment) -> str:
    """Return in words which stage is another one here; nothing if none is.

    What no file shows, as another version of a plug-in, shows in the keys.
    """
    pairs = zip(pipeline, assignment.keys, strict=False)
    stage = next((node.spec.name for node, planned in pairs if node.key != planned), "")
    return f"stage `{stage}` has another key here: versions or files of plug-ins differ" if stage else ""


def differs(assignment: Assignment) -> str:
    """Return in words what a trial would read here that is not what its study was planned with; nothing if all is.

    Raises:
        UserError: if its plug-ins cannot be imported, or its configuration is not known here.
    """
    if found := files_differ(assignment):
        return found
    load_plugins(assignment.plugins)
    trial = TrialConfig.model_validate(assignment.config)
    if found := data_differs(trial.victim.data, assignment):
        return found
    return keys_differ(build_pipeline(trial, assignment.seed, assignment.data_key), assignment)


def _digest(path: Path) -> str:
    return digest_files([path], path.name)
