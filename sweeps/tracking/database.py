"""MLflow's database in a file: made whole or not at all, and set aside where it is broken.

MLflow makes a database by a hundred migrations in place, and one that was left in the middle of them it can neither
finish nor read. So ours is made under another name and moved into its place.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit

from sweeps.tracking.config import RELATIVE
from sweeps.tracking.faults import BlockedError, UnavailableError, fault_of
from ubt.common.atomic_files import alone, whole_file

_SIDE_FILES = ("", "-journal", "-wal", "-shm")
"""What belongs to a sqlite database; a journal that stayed would be played into its successor."""
_STILL_SECONDS, _STILL_EMPTY_SECONDS = 15.0, 2.0
"""Another program may be making an unfinished database right now: only one that rests is broken."""
_SMALL_BYTES = 64 << 20
_OLDER = "an older MLflow made it"

_log = logging.getLogger(__name__)


def made_ready(path: Path, broken: str = "") -> Path | None:
    """See to it that MLflow finds a whole database at `path`; return where a broken one was set aside.

    Args:
        path: of the database; it need not exist.
        broken: what MLflow has met in it that no look at it shows.

    Raises:
        TrackingFault: if there is a database that MLflow cannot use and that is not ours to replace, or not yet.
        OSError: if the disk is full or not writable.
    """
    from sweeps.tracking.mlflow_sink import make_database  # noqa: PLC0415 — MLflow, 2 s

    if not (broken or _lacking(path)):
        return None
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = None
    with alone(path), _tidied(path):
        fault = broken or _lacking(path)
        if not fault:
            return None  # another process was quicker
        with whole_file(path) as unfinished:
            if fault != _OLDER or (fault := _upgraded(path, unfinished)):
                make_database(unfinished)
                aside = _set_aside(path) if path.exists() else None
    if aside:
        _log.warning(
            "MLflow's database %s is broken (%s). It was set aside as %s, and one in its place is filled with this "
            "run; `ubt track %s/*` sends the other ones that were in it.",
            *(path, fault, aside.name, path.parent),
        )
    return aside


def mended_addresses(path: Path) -> int:
    """Make addresses of files relative that were absolute and lead nowhere since the database was moved with its files.

    Return how many runs that concerns. Databases of before hold absolute addresses.
    """
    files, mended = path.parent / "mlartifacts", 0
    with closing(_open(path)) as database, database:
        for table, column in (("experiments", "artifact_location"), ("runs", "artifact_uri")):
            found = database.execute(f"SELECT DISTINCT {column} FROM {table} WHERE {column} LIKE 'file:%'")  # noqa: S608 — names of ours
            for (address,) in found.fetchall():
                old, mark, rest = str(address).rpartition("/mlartifacts")
                gone = not Path(unquote(urlsplit(old + mark).path)).exists()
                if mark and gone and (files / unquote(rest).strip("/")).exists():
                    new = RELATIVE + rest.strip("/")
                    database.execute(f"UPDATE {table} SET {column} = ? WHERE {column} = ?", (new, address))  # noqa: S608
                    mended += table == "runs"
    return mended


def _lacking(path: Path) -> str:
    """Return what keeps MLflow from using a database as it is; empty if nothing that a glance shows.

    Raises:
        TrackingFault: as `made_ready`.
    """
    from sweeps.tracking.mlflow_sink import known_versions  # noqa: PLC0415

    if not path.exists():
        return "it is missing"
    try:
        with closing(_open(path)) as database:
            tables = _tables(database)
            found = database.execute("SELECT version_num FROM alembic_version") if "alembic_version" in tables else ()
            versions = [version for (version,) in found]
            runs = database.execute("SELECT 1 FROM runs LIMIT 1").fetchone() if "runs" in tables else None
            checked = database.execute("PRAGMA quick_check(1)").fetchone()[0] if _is_small(path) else "ok"
    except sqlite3.DatabaseError as error:
        return _words(error)
    if checked != "ok":
        return str(checked)
    if tables and not tables & {"experiments", "runs"}:
        raise BlockedError(f"{path} is another program's database", "name another file in `tracking.uri`")
    newest, known = known_versions()
    if versions == [newest]:
        return ""
    if not set(versions) <= known:
        raise BlockedError(f"a newer MLflow made {path}", "install that one here, or name another database")
    if 0 <= time.time() - path.stat().st_mtime < (_STILL_SECONDS if tables else _STILL_EMPTY_SECONDS):
        raise UnavailableError(f"another program seems to make {path} right now")
    return _OLDER if runs else "it was left half made" if tables else "it is empty"


def _upgraded(path: Path, copy: Path) -> str:
    """Bring a copy of a database with runs in it up to date, as MLflow would; return why that cannot be, or nothing.

    Raises:
        TrackingFault: if MLflow leaves that to its user, or the disk is full.
    """
    from sweeps.tracking.mlflow_sink import make_database  # noqa: PLC0415

    with closing(_open(path)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    try:
        make_database(copy)
    except Exception as error:
        fault = fault_of(error)
        if type(fault) is BlockedError or "full" in str(fault):
            raise fault from error
        for end in _SIDE_FILES:
            copy.with_name(copy.name + end).unlink(missing_ok=True)
        return str(fault)
    return ""


def _is_small(path: Path) -> bool:
    """Tell whether all pages can be looked at within a fraction of a second."""
    return path.stat().st_size <= _SMALL_BYTES


def _open(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=20)


def _tables(database: sqlite3.Connection) -> set[str]:
    return {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def _words(error: sqlite3.DatabaseError) -> str:
    """Return what sqlite says of a file that is broken.

    Raises:
        TrackingFault: if it is something else: no access, a full disk.
    """
    if getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return str(error)
    raise fault_of(error) from error


def _set_aside(path: Path) -> Path:
    """Move a database away, with what belongs to it."""
    aside = path.with_name(f"{path.name}.broken-{datetime.now(UTC):%Y%m%dT%H%M%S.%f}")
    for end in _SIDE_FILES:
        part = path.with_name(path.name + end)
        if part.exists():
            part.rename(aside.with_name(aside.name + end))
    return aside


@contextmanager
def _tidied(path: Path) -> Iterator[None]:
    """Remove unfinished databases and their journals: those of killed processes before, and ours after."""

    def tidy() -> None:
        for part in path.parent.iterdir():
            if part.name.startswith(f".{path.name}.") and not part.name.endswith(".lock"):
                part.unlink(missing_ok=True)

    tidy()
    try:
        yield
    finally:
        tidy()
