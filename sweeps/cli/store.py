"""`ubt store`: list, measure, verify and prune the artifact store."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from sweeps.cli.options import DEFAULT_STORE
from ubt.artifacts.lease_watch import DeadLeases, dead_leases, keys_in_use
from ubt.artifacts.manifest import ArtifactManifest
from ubt.artifacts.remote_folder import at_hand
from ubt.artifacts.store import ArtifactStore, StoredFile, default_store, local_cache
from ubt.common.errors import DamagedArtifact, Problem, UserError
from ubt.common.exits import Exit
from ubt.common.formatting import Align, duration, size, text_table
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

    @property
    def images(self) -> list[StoredFile]:
        """Return decoded images and their captions: they are decoded again when they are needed."""
        return [file for file in self.cached if not _unfinished(file)]

    @property
    def leftovers(self) -> list[StoredFile]:
        """Return what nothing will ever need, and what is being written just now."""
        return [*self.strays, *filter(_unfinished, self.cached)]

    def made_before(self, leftovers: datetime, images: datetime | None) -> Remains:
        """Return what is older than these times; no images if they have none."""
        old = [file for file in self.images if images is not None and file.modified < images]
        unfinished = [file for file in self.cached if _unfinished(file) and file.modified < leftovers]
        return Remains([file for file in self.strays if file.modified < leftovers], old + unfinished)

    def remove_from(self, store: ArtifactStore) -> None:
        """Delete all of it; what has gone meanwhile is passed over."""
        for stray in self.strays:
            store.remove_stray(stray)
        for file in self.cached:
            Path(file.path).unlink(missing_ok=True)


def remains(store: ArtifactStore, manifests: Iterable[ArtifactManifest]) -> Remains:
    """Return what a store holds beside the artifacts that `manifests` describe."""
    return Remains(store.strays(manifests), _cached_in(local_cache(store.root)))


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
    staying = {key for key, one in by_key.items() if key in kept or (before is not None and _made(one) >= before)}
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


def _made(manifest: ArtifactManifest) -> datetime:
    made = datetime.fromisoformat(manifest.created_at)
    return made if made.tzinfo else made.replace(tzinfo=UTC)


store_app = typer.Typer(help="List, measure, verify and prune the artifact store.", no_args_is_help=True)

StoreOption = Annotated[str | None, typer.Option("--store", help=f"A folder or URL; {DEFAULT_STORE} by default.")]


@store_app.command("ls")
def list_artifacts(store: StoreOption = None) -> None:
    """List every artifact, newest last."""
    manifests = sorted(_open(store).manifests(), key=lambda manifest: manifest.created_at)
    sides: tuple[Align, ...] = ("left", "left", "left", "right", "right", "right")
    columns = dict(zip(("made", "stage", "key", "size", "computed in", "epochs"), sides, strict=True))
    print(text_table(columns, map(_row, manifests)))


def _row(manifest: ArtifactManifest) -> tuple[str, ...]:
    epochs = str(manifest.epochs[-1].epoch) if manifest.epochs else ""
    return (
        manifest.created_at,
        manifest.stage,
        manifest.key,
        size(manifest.size_bytes),
        duration(manifest.seconds),
        epochs,
    )


@store_app.command("du")
def disk_usage(store: StoreOption = None) -> None:
    """Say what each stage's artifacts take and took to compute, and what lies beside them."""
    opened = _open(store)
    manifests = list(opened.manifests())
    found, beside = usage(manifests), remains(opened, manifests)
    others = {"images": beside.images, "leftovers": beside.leftovers}
    size_bytes = sum(stage.size_bytes for stage in found) + sum(map(_bytes_of, others.values()))
    seconds = sum(stage.seconds for stage in found)
    rows = [(s.stage, f"{s.artifacts} artifacts", size(s.size_bytes), duration(s.seconds)) for s in found]
    rows += [(name, f"{len(files)} files", size(_bytes_of(files)), "") for name, files in others.items()]
    rows.append(("all", f"{len(manifests)} artifacts", size(size_bytes), duration(seconds)))
    print(text_table({"": "left", "number": "right", "size": "right", "computed in": "right"}, rows))


@store_app.command()
def verify(store: StoreOption = None) -> None:
    """Read every artifact and compare checksums; damaged ones are set aside and computed again when needed."""
    opened = _open(store)
    manifests = list(opened.manifests())
    found = damaged(opened, manifests)
    for line in found:
        print(line)
    print(f"{len(manifests)} artifacts read, {len(found)} damaged")
    raise typer.Exit(Exit.SOME_FAILED if found else Exit.DONE)


@store_app.command()
def prune(
    older_than: Annotated[
        str | None, typer.Option(help="Artifacts and decoded images older than this: 12h, 30d, 8w.")
    ] = None,
    keep: Annotated[
        list[str] | None, typer.Option(help="Run folder, or its address, whose artifacts stay; may be repeated.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go.")] = False,
    store: StoreOption = None,
) -> None:
    """Remove artifacts, if any are named; and always what killed workers left, once it is a day old.

    Records stay; a removed artifact is computed again when a trial needs it, and so are decoded images, which go by
    their age alone. Artifacts that a trial needs which computes just now, in any sweep on this store, stay.
    """
    now = datetime.now(UTC)
    before = now - parse_age(older_than) if older_than else None
    opened, kept = _open(store), keys_of_runs(keep or ())
    leases = opened.lease_files()
    used = keys_in_use(leases, now - LEFTOVER_AGE) if leases else frozenset()
    dead = dead_leases(leases, now - LEFTOVER_AGE) if leases else DeadLeases()
    manifests = list(opened.manifests())
    leaving = removable(manifests, before, kept | used) if older_than or keep else []
    beside = remains(opened, manifests).made_before(now - LEFTOVER_AGE, before)
    if not dry_run:
        for manifest in leaving:
            opened.remove(manifest)
        beside.remove_from(opened)
        if leases:
            dead.remove_from(leases)
    done = "would be removed" if dry_run else "removed"
    print(f"{len(leaving)} artifacts, {size(sum(manifest.size_bytes for manifest in leaving))} {done}")
    print(f"{len(beside.images)} files of decoded images, {size(_bytes_of(beside.images))} {done}")
    print(f"{len(beside.leftovers) + len(dead)} leftovers, {size(_bytes_of(beside.leftovers))} {done}")


def _open(store: str | None) -> ArtifactStore:
    return ArtifactStore(store or default_store())


def _bytes_of(files: Iterable[StoredFile]) -> int:
    return sum(file.size_bytes for file in files)
