"""A folder behind an address that fsspec knows, S3 say: whole files are read and written, and copies of it lie here.

Where a run folder is meant, an address may be given for it. Who only reads gets a copy in the cache, in which a file
is fetched again when it has changed. Loads no torch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import fsspec

from ubt.artifacts.lease_files import LeaseFiles, S3Leases
from ubt.artifacts.patience import access_to
from ubt.common.atomic_files import write_whole
from ubt.common.errors import Problem, UserError
from ubt.common.hashing import digest_bytes
from ubt.common.paths import cache_root, expanded
from ubt.common.secrets import without_credentials

Result = TypeVar("Result")

_AT_A_TIME = 8
"""Files that are fetched or sent at a time: each costs some tens of milliseconds of waiting."""
_ADVICE = "is the address right, and may this machine read and write there? Credentials come from the cloud's variables"
_ONE_SLASH = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/[^/]")
_FETCHED = ".fetched.json"
_LOCK = "lock"
"""Where leases of the folder lie, and what else is no part of what it holds."""


class UnusableFolder(UserError, OSError):
    """A folder behind an address cannot be read or written."""


def place_of(given: Path | str, where: str) -> Path | str:
    """Return a place as a path, or as the address that it is; `where` says in which option it was given.

    Raises:
        UserError: if it is an address that has lost a slash: as a path it would be a folder called `s3:`.
    """
    text = str(given)
    scheme, found, rest = text.partition("://")
    if found and scheme in {"file", "local"}:
        return Path(rest)
    if found:
        return text.rstrip("/")
    if _ONE_SLASH.match(text):
        advice = "write it with two, s3://bucket/folder; in Python as a string, since a Path drops one"
        raise UserError(Problem(where, "is an address with one slash", text, advice))
    return expanded(given, where)


def path_of(given: Path | str, where: str) -> Path:
    """Return a place of this machine as a path.

    Raises:
        UserError: if it is an address; typer and `Path` have taken one of its slashes by then.
    """
    if is_address(str(given)) or _ONE_SLASH.match(str(given)):
        raise UserError(Problem(where, "must be a place of this machine, not an address", str(given)))
    return Path(given)


def is_address(place: str) -> bool:
    """Tell whether a place is an address, and not a path."""
    return "://" in place


def shown(place: Path | str) -> str:
    """Return a place as it is shown: an address without credentials."""
    return without_credentials(str(place))


class RemoteFolder:
    """A folder behind an address. Every method raises `UnusableFolder` if need be.

    Raises:
        UserError: if the address is of a kind that fsspec does not know or lacks a package for.
    """

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/")
        self.shown = shown(self.address)
        try:
            # Listings must not be cached: others write while this one reads.
            self._files, path = fsspec.url_to_fs(self.address, use_listings_cache=False)
        except (ImportError, ValueError) as error:
            raise UserError(Problem(self.shown, f"cannot be used: {error}", advice=_ADVICE)) from error
        self._root = path.rstrip("/")
        if not _is_inside(self.name):
            raise UserError(Problem(self.shown, "must end with the name of a folder"))
        named = "{0.__class__.__name__}: {0}".format  # some clients' errors have no text
        self._access = access_to(self.shown, UnusableFolder, _ADVICE, named)

    @property
    def name(self) -> str:
        """Return the last part of the address."""
        return self.address.rpartition("/")[2]

    def below(self, name: str) -> RemoteFolder:
        """Return a folder in this one."""
        return RemoteFolder(f"{self.address}/{name}")

    def in_cache(self, what: str) -> Path:
        """Return where this machine keeps something of the folder; its last parts are the folder's own."""
        parent = self.address.rpartition("/")[0]
        return cache_root() / what / digest_bytes(parent.encode())[:16] / self.name

    def folders(self) -> list[str]:
        """Return the names of the folders in it."""
        found = self._there(lambda: self._files.ls(self._root, detail=True)) or []
        return sorted(PurePosixPath(one["name"]).name for one in found if one["type"] == "directory")

    def read(self, name: str) -> bytes | None:
        """Return a file's bytes, or None if there is no such file."""
        return self._there(lambda: bytes(self._files.cat_file(f"{self._root}/{name}")))

    def changed_at(self, name: str) -> datetime | None:
        """Return when a file was written, by the clock there; None if there is none."""
        changed: datetime | None = self._there(lambda: self._files.modified(f"{self._root}/{name}"))
        return changed

    def write(self, contents: Mapping[str, bytes]) -> None:
        """Write files, each whole, as object stores do."""
        self._each(
            "written", lambda name: self._files.pipe_file(f"{self._root}/{name}", contents[name]), list(contents)
        )

    def stamps(self) -> dict[str, str]:
        """Return, for each file below, what is another one when the file has changed."""
        found: dict[str, dict[str, Any]] = self._there(lambda: self._files.find(self._root, detail=True)) or {}
        names = {path.removeprefix(f"{self._root}/"): info for path, info in found.items()}
        held = {name: info for name, info in sorted(names.items()) if not name.startswith(f"{_LOCK}/")}
        return {name: _stamp(info) for name, info in held.items() if _is_inside(name)}

    def leases(self) -> LeaseFiles | None:
        """Return where leases of the folder lie; None if it is of a kind that cannot have any."""
        return S3Leases(self._files, f"{self._root}/{_LOCK}", self._access) if "s3" in self._files.protocol else None

    def note(self, name: str, content: bytes | None = None) -> bytes | None:
        """Return a note beside the leases, which is no part of what the folder holds; with `content`, write it."""
        if content is None:
            return self.read(f"{_LOCK}/{name}")
        self.write({f"{_LOCK}/{name}": content})
        return content

    def bring(self, folder: Path, parts: Iterable[str] = ()) -> list[str]:
        """Make a folder here a copy, or of some parts of it; return what was fetched. What is as before is not."""
        wanted = set(parts)
        now = {name: stamp for name, stamp in self.stamps().items() if not wanted or name.partition("/")[0] in wanted}
        known = _known(folder)
        due = [name for name, stamp in now.items() if known.get(name) != stamp or not (folder / name).is_file()]

        def fetch(name: str) -> None:
            if (content := self.read(name)) is not None:
                write_whole(folder / name, content)

        self._each("read", fetch, due)
        for name in known.keys() - now.keys():
            if not wanted or name.partition("/")[0] in wanted:
                (folder / name).unlink(missing_ok=True)
        kept = {name: stamp for name, stamp in known.items() if wanted and name.partition("/")[0] not in wanted}
        if due or known != kept | now:
            write_whole(folder / _FETCHED, json.dumps(kept | now))
        return due

    def _there(self, call: Callable[[], Result]) -> Result | None:
        """Return what `call` reads, or None if that is not there."""
        with self._access("read"):
            try:
                return call()
            except FileNotFoundError:
                return None

    def _each(self, what: str, call: Callable[[str], object], names: list[str]) -> None:
        with self._access(what), ThreadPoolExecutor(_AT_A_TIME) as threads:
            for _ in threads.map(call, names):
                pass


@contextmanager
def at_hand(folder: Path | str, parts: Iterable[str] = (), written: str = "") -> Iterator[Path]:
    """Yield a folder of this machine: the one that is given or, of one behind an address, a copy that is up to date.

    Args:
        folder: a path or an address.
        parts: names in it, if only some are needed.
        written: a folder in it; what the block changes there is sent to the address.

    Raises:
        UserError: if the address cannot be read, or not written.
    """
    place = place_of(folder, str(folder))
    if isinstance(place, Path):
        yield place
        return
    remote = RemoteFolder(place)
    copy = remote.in_cache("run-copies")
    remote.bring(copy, parts)
    before = _states(copy / written) if written else {}
    yield copy
    if written:
        changed = [path for path, state in _states(copy / written).items() if before.get(path) != state]
        remote.write({path.relative_to(copy).as_posix(): path.read_bytes() for path in changed})


def _states(folder: Path) -> dict[Path, tuple[int, int]]:
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {path: ((state := path.stat()).st_mtime_ns, state.st_size) for path in files}


def _known(folder: Path) -> dict[str, str]:
    """Return the stamps of what was fetched before."""
    try:
        known: dict[str, str] = json.loads((folder / _FETCHED).read_text())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _stamp(info: Mapping[str, Any]) -> str:
    changed = next((str(info[name]) for name in ("LastModified", "mtime", "updated", "created") if name in info), "")
    return f"{info.get('ETag', '')} {info.get('size', '')} {changed}"


def _is_inside(name: str) -> bool:
    """Tell whether a name leads to a file in a copy: others may have put anything there."""
    return not any(part in {"", ".", ".."} or "\0" in part or "\\" in part for part in name.split("/"))
