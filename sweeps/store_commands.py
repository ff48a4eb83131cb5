"""`ubt store`: list, measure, verify and prune the artifact store."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from sweeps.cli_options import DEFAULT_STORE, Exit
from sweeps.housekeeping import LEFTOVER_AGE, damaged, keys_of_runs, parse_age, remains, removable, usage
from ubt.store import ArtifactStore, StoredFile, default_store

store_app = typer.Typer(help="List, measure, verify and prune the artifact store.", no_args_is_help=True)

StoreOption = Annotated[str | None, typer.Option("--store", help=f"A folder or URL; {DEFAULT_STORE} by default.")]


@store_app.command("ls")
def list_artifacts(store: StoreOption = None) -> None:
    """List every artifact, newest last."""
    for meta in sorted(_open(store).metas(), key=lambda meta: meta.created_at):
        epochs = f"  {meta.epochs[-1].epoch} epochs" if meta.epochs else ""
        print(
            f"{meta.created_at}  {meta.stage:<10} {meta.key}  {_size(meta.size_bytes):>9} {meta.seconds:7.1f} s{epochs}"
        )


@store_app.command("du")
def disk_usage(store: StoreOption = None) -> None:
    """Say what each stage's artifacts take and took to compute, and what lies beside them."""
    opened = _open(store)
    metas = list(opened.metas())
    rows, beside = usage(metas), remains(opened, metas)
    for row in rows:
        print(f"{row.stage:<10} {row.artifacts:>6} artifacts {_size(row.size_bytes):>10} {row.seconds:>10.0f} s")
    others = {"images": beside.images, "leftovers": beside.leftovers}
    for name, files in others.items():
        print(f"{name:<10} {len(files):>6} files     {_size(_bytes_of(files)):>10}")
    size_bytes = sum(row.size_bytes for row in rows) + sum(map(_bytes_of, others.values()))
    count, seconds = sum(row.artifacts for row in rows), sum(row.seconds for row in rows)
    print(f"{'all':<10} {count:>6} artifacts {_size(size_bytes):>10} {seconds:>10.0f} s")


@store_app.command()
def verify(store: StoreOption = None) -> None:
    """Read every artifact and compare checksums; damaged ones are set aside and computed again when needed."""
    opened = _open(store)
    metas = list(opened.metas())
    found = damaged(opened, metas)
    for line in found:
        print(line)
    print(f"{len(metas)} artifacts read, {len(found)} damaged")
    raise typer.Exit(Exit.SOME_FAILED if found else Exit.DONE)


@store_app.command()
def prune(
    older_than: Annotated[
        str | None, typer.Option(help="Artifacts and decoded images older than this: 12h, 30d, 8w.")
    ] = None,
    keep: Annotated[list[Path] | None, typer.Option(help="Run folder whose artifacts stay; may be repeated.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go.")] = False,
    store: StoreOption = None,
) -> None:
    """Remove artifacts, if told which; and always what killed workers left, once it is a day old.

    Records stay; a removed artifact is computed again when a trial needs it, and so are decoded images, which go by
    their age alone.
    """
    now = datetime.now(UTC)
    before = now - parse_age(older_than) if older_than else None
    opened, kept = _open(store), keys_of_runs(keep or ())
    metas = list(opened.metas())
    leaving = removable(metas, before, kept) if older_than or keep else []
    beside = remains(opened, metas).made_before(now - LEFTOVER_AGE, before)
    if not dry_run:
        for meta in leaving:
            opened.remove(meta)
        beside.remove_from(opened)
    done = "would be removed" if dry_run else "removed"
    print(f"{len(leaving)} artifacts, {_size(sum(meta.size_bytes for meta in leaving))} {done}")
    print(f"{len(beside.images)} files of decoded images, {_size(_bytes_of(beside.images))} {done}")
    print(f"{len(beside.leftovers)} leftovers, {_size(_bytes_of(beside.leftovers))} {done}")


def _open(store: str | None) -> ArtifactStore:
    return ArtifactStore(store or default_store())


def _bytes_of(files: Iterable[StoredFile]) -> int:
    return sum(file.size_bytes for file in files)


def _size(size_bytes: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if size_bytes < 1000:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.1f} TB"
