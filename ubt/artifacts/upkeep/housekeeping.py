"""What a store holds and what of it may go: usage, damage, what killed workers left, and what no run needs."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ubt.artifacts.manifest import ArtifactManifest
from ubt.artifacts.payloads import StoredFile
from ubt.artifacts.remote_folder import at_hand
from ubt.artifacts.store import ArtifactStore, UnfinishedStore, local_cache
from ubt.common.errors import DamagedArtifact, Problem, UserError
from ubt.common.paths import RECORDS_FOLDER
from ubt.data.images import KEPT
from ubt.trials.record import read_records

LEFTOVER_AGE = timedelta(days=1)
"""What is unfinished by then belongs to a process that is no more."""
_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


@dataclass(frozen=True)
class Usage:
    """What the artifacts of one stage take and took."""

    stage: str
    artifacts: int
    size_bytes: int
    seconds: float
    """Seconds that computing them took."""


def usage(manifests: Iterable[ArtifactManifest]) -> list[Usage]:
    """Return the usage of each stage, largest first."""
    groups: defaultdict[str, list[ArtifactManifest]] = defaultdict(list)
    for manifest in manifests:
        groups[manifest.stage].append(manifest)
    rows = [
        Usage(stage, len(group), sum(one.size_bytes for one in group), sum(one.seconds for one in group))
        for stage, group in groups.items()
    ]
    return sorted(rows, key=lambda row: -row.size_bytes)


@dataclass(frozen=True)
class Remains:
    """What lies in a store beside its artifacts."""

    strays: list[StoredFile]
    """Among the artifacts: what killed workers left, what was damaged and set aside, payloads that were replaced."""
    cached: list[StoredFile]
    """In the folder of decoded images."""
    unfinished: list[ArtifactManifest] = field(default_factory=list)
    """What stages that were ended continue from."""
    indexes: list[StoredFile] = field(default_factory=list)
    """Of data sets: which rows a node's data differs in is found by them; written again by the next sweep."""

    @property
    def images(self) -> list[StoredFile]:
        """Return decoded images and their captions: they are decoded again when they are needed."""
        return [file for file in self.cached if not _unfinished(file)]

    @property
    def leftovers(self) -> list[StoredFile]:
        """Return what nothing will ever need, and what is being written just now."""
        return [*self.strays, *filter(_unfinished, self.cached)]

    def made_before(self, leftovers: datetime, images: datetime | None) -> Remains:
        """Return what is older than these times; no images and no indexes if they have none."""
        old = [file for file in self.images if images is not None and file.modified < images]
        unfinished = [file for file in self.cached if _unfinished(file) and file.modified < leftovers]
        indexes = [file for file in self.indexes if images is not None and file.modified < images]
        ended = [one for one in self.unfinished if images is not None and one.made < images]
        return Remains([file for file in self.strays if file.modified < leftovers], old + unfinished, ended, indexes)

    def remove_from(self, store: ArtifactStore) -> None:
        """Delete all of it; what has gone meanwhile is passed over."""
        for stray in (*self.strays, *self.indexes):
            store.remove_stray(stray)
        for file in self.cached:
            Path(file.path).unlink(missing_ok=True)
        for one in self.unfinished:
            UnfinishedStore(store.root).remove(one)


def remains(
    store: ArtifactStore, manifests: Iterable[ArtifactManifest], computed: Collection[str] = frozenset()
) -> Remains:
    """Return what a store holds beside the artifacts that `manifests` describe.

    Of what is unfinished, what belongs to leases that are held, `computed` by their slots, is left out.
    """
    kept = UnfinishedStore(store.root)
    unfinished = list(kept.manifests())
    strays = [*store.strays(manifests), *kept.strays(unfinished)]
    ended = [one for one in unfinished if f"{one.stage}/{one.key}" not in computed]
    return Remains(strays, _cached_in(local_cache(store.root)), ended, store.indexes())


def damaged(store: ArtifactStore, manifests: Iterable[ArtifactManifest]) -> list[str]:
    """Read every payload and return what is wrong, one line each; damaged artifacts are set aside."""
    found = []
    for manifest in manifests:
        try:
            for name in manifest.payloads:
                store.read(manifest, name)
        except DamagedArtifact as damage:
            found.append(str(damage))
    return found


def removable(
    manifests: Sequence[ArtifactManifest], before: datetime | None, kept: frozenset[str]
) -> list[ArtifactManifest]:
    """Return the artifacts that may go: made before a time, needed by no run that is kept, and no other's base.

    An artifact that one to be kept is stored as a difference from stays, and so on up to the victim.
    """
    by_key = {manifest.key: manifest for manifest in manifests}
    staying = {key for key, one in by_key.items() if key in kept or (before is not None and one.made >= before)}
    queue = list(staying)
    while queue:
        base = by_key[queue.pop()].base
        key = base.partition("/")[2] if base else ""
        if key in by_key and key not in staying:
            staying.add(key)
            queue.append(key)
    return [manifest for key, manifest in by_key.items() if key not in staying]


def keys_of_runs(folders: Iterable[str]) -> frozenset[str]:
    """Return the keys of all artifacts that the records of some runs name.

    Raises:
        UserError: if a folder is no run: forgetting to keep it would cost what it holds.
    """
    keys: set[str] = set()
    problems = []
    for folder in folders:
        with at_hand(folder, (RECORDS_FOLDER,)) as here:
            if not (here / RECORDS_FOLDER).is_dir():
                problems.append(Problem(f"--keep {folder}", "is no run folder", advice="e.g. --keep runs/demo"))
                continue
            keys.update(stage.key for record in read_records(here / RECORDS_FOLDER) for stage in record.stages)
    if problems:
        raise UserError(problems)
    return frozenset(keys)


def parse_age(text: str) -> timedelta:
    """Return a span of time written as `12h`, `30d` or `8w`.

    Raises:
        UserError: if it is not written so.
    """
    match = re.fullmatch(r"(\d+)([hdw])", text.strip())
    if match is None:
        raise UserError(Problem("--older-than", "is a number and h, d or w", text, "e.g. 12h, 30d, 8w"))
    return int(match[1]) * _UNITS[match[2]]


def _unfinished(file: StoredFile) -> bool:
    return Path(file.path).name.startswith(".")


def _cached_in(folder: Path) -> list[StoredFile]:
    """Return what data sets keep in a folder of this machine, if there is one; what goes meanwhile is left out."""
    found = []
    for path in sorted(path for path in folder.glob("*") if KEPT.fullmatch(path.name)):
        with suppress(FileNotFoundError):
            state = path.stat()
            found.append(StoredFile(str(path), state.st_size, datetime.fromtimestamp(state.st_mtime, UTC)))
    return found
