"""`ubt store`: list, measure, verify and prune the artifact store."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from sweeps.cli.options import DEFAULT_STORE
from ubt.common.exits import Exit

if TYPE_CHECKING:
    from ubt.artifacts.manifest import ArtifactManifest
    from ubt.artifacts.payloads import StoredFile
    from ubt.artifacts.store import ArtifactStore
    from ubt.common.formatting import Align

store_app = typer.Typer(help="List, measure, verify and prune the artifact store.", no_args_is_help=True)

StoreOption = Annotated[str | None, typer.Option("--store", help=f"A folder or URL; {DEFAULT_STORE} by default.")]


@store_app.command("ls")
def list_artifacts(store: StoreOption = None) -> None:
    """List every artifact, newest last."""
    from ubt.common.formatting import text_table  # noqa: PLC0415

    manifests = sorted(_open(store).manifests(), key=lambda manifest: manifest.created_at)
    sides: tuple[Align, ...] = ("left", "left", "left", "right", "right", "right")
    columns = dict(zip(("made", "stage", "key", "size", "computed in", "epochs"), sides, strict=True))
    print(text_table(columns, map(_row, manifests)))


def _row(manifest: ArtifactManifest) -> tuple[str, ...]:
    from ubt.common.formatting import duration, size  # noqa: PLC0415

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
    """Say what each stage's artifacts take and took to compute, and what lies beside them.

    Unfinished is what stages that were ended, or are being computed, continue from.
    """
    from ubt.artifacts.upkeep.housekeeping import remains, usage  # noqa: PLC0415
    from ubt.common.formatting import duration, size, text_table  # noqa: PLC0415

    opened = _open(store)
    manifests = list(opened.manifests())
    found, beside = usage(manifests), remains(opened, manifests)
    unfinished = (f"{len(beside.unfinished)} stages", size(sum(one.size_bytes for one in beside.unfinished)))
    others = {"images": beside.images, "indexes of data": beside.indexes, "leftovers": beside.leftovers}
    size_bytes = (
        sum(one.size_bytes for one in found)
        + sum(one.size_bytes for one in beside.unfinished)
        + sum(map(_bytes_of, others.values()))
    )
    seconds = sum(stage.seconds for stage in found)
    rows = [(s.stage, f"{s.artifacts} artifacts", size(s.size_bytes), duration(s.seconds)) for s in found]
    rows += [(name, f"{len(files)} files", size(_bytes_of(files)), "") for name, files in others.items()]
    rows.append(("unfinished", *unfinished, duration(sum(one.seconds for one in beside.unfinished))))
    rows.append(("all", f"{len(manifests)} artifacts", size(size_bytes), duration(seconds)))
    print(text_table({"": "left", "number": "right", "size": "right", "computed in": "right"}, rows))


@store_app.command()
def verify(store: StoreOption = None) -> None:
    """Read every artifact and compare checksums; damaged ones are set aside and computed again when needed."""
    from ubt.artifacts.upkeep.housekeeping import damaged  # noqa: PLC0415

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
        str | None,
        typer.Option(
            help="Artifacts, what ended stages saved, decoded images, indexes of data, older than this: 12h, 30d, 8w."
        ),
    ] = None,
    keep: Annotated[
        list[str] | None, typer.Option(help="Run folder, or its address, whose artifacts stay; may be repeated.")
    ] = None,
    budget: Annotated[
        str | None, typer.Option(help="Artifacts go, first what was used longest ago, until all take no more: 200GB.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go.")] = False,
    store: StoreOption = None,
) -> None:
    """Remove artifacts, if any are named; and always what killed workers left, once it is a day old.

    Records stay; a removed artifact is computed again when a trial needs it, and so are decoded images, which go by
    their age alone. Artifacts that a trial needs which computes just now, in any sweep on this store, stay. With a
    budget, artifacts of runs to keep go last.
    """
    from datetime import UTC, datetime  # noqa: PLC0415

    from ubt.artifacts.lease_watch import DeadLeases, dead_leases, keys_in_use, slots_in_use  # noqa: PLC0415
    from ubt.artifacts.upkeep.budget import Needs, excess, parse_size  # noqa: PLC0415
    from ubt.artifacts.upkeep.housekeeping import LEFTOVER_AGE, keys_of_runs, parse_age, remains, removable  # noqa: PLC0415
    from ubt.common.formatting import size  # noqa: PLC0415

    now = datetime.now(UTC)
    before = now - parse_age(older_than) if older_than else None
    opened, kept = _open(store), keys_of_runs(keep or ())
    leases = opened.lease_files()
    used = keys_in_use(leases, now - LEFTOVER_AGE) if leases else frozenset()
    dead = dead_leases(leases, now - LEFTOVER_AGE) if leases else DeadLeases()
    manifests = list(opened.manifests())
    leaving = removable(manifests, before, kept | used) if older_than or (keep and not budget) else []
    over = None
    if budget:
        staying = [manifest for manifest in manifests if manifest not in leaving]
        over = excess(staying, parse_size(budget), Needs(used, front=kept), opened.used_at)
        leaving = [*leaving, *over.leaving]
    computed = slots_in_use(leases, now - LEFTOVER_AGE) if leases else frozenset()
    beside = remains(opened, manifests, computed).made_before(now - LEFTOVER_AGE, before)
    if not dry_run:
        for manifest in leaving:
            opened.remove(manifest)
        beside.remove_from(opened)
        if leases:
            dead.remove_from(leases)
    done = "would be removed" if dry_run else "removed"
    print(f"{len(leaving)} artifacts, {size(sum(manifest.size_bytes for manifest in leaving))} {done}")
    if over and over.over_bytes:
        print(f"{size(over.size_bytes)} of artifacts stay: trials need them that compute just now")
    print(f"{len(beside.images)} files of decoded images, {size(_bytes_of(beside.images))} {done}")
    print(f"{len(beside.indexes)} indexes of data, {size(_bytes_of(beside.indexes))} {done}")
    if beside.unfinished:
        print(f"{len(beside.unfinished)} unfinished, {size(sum(one.size_bytes for one in beside.unfinished))} {done}")
    print(f"{len(beside.leftovers) + len(dead)} leftovers, {size(_bytes_of(beside.leftovers))} {done}")


def _open(store: str | None) -> ArtifactStore:
    from ubt.artifacts.store import ArtifactStore, default_store  # noqa: PLC0415

    return ArtifactStore(store or default_store())


def _bytes_of(files: Iterable[StoredFile]) -> int:
    return sum(file.size_bytes for file in files)
