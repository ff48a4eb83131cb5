"""What other runs have found out, as it was when a search began with it: a file in the run folder.

Those runs may go on, move or be removed meanwhile; a search that goes on, or whose storage is rebuilt, knows the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic import JsonValue

from sweeps.search.proposals import Earlier, Outcome
from ubt.common.atomic_files import write_whole
from ubt.common.errors import Problem, UserError
from ubt.common.paths import is_file
from ubt.config import Config, read_json, validate
from ubt.trials.record import DamagedRecord

WARM_START = "warm_start.json"
"""Its name, beside the search's journal."""


class _Found(Config):
    """One configuration."""

    source: str
    changes: dict[str, JsonValue]
    values: tuple[float, ...] | None
    ca_lost: float | None = None
    held_lost: float | None = None
    ruled_out: bool = False
    epochs: tuple[tuple[int, float, float], ...] = ()


class _WarmStart(Config):
    """The file."""

    runs: tuple[str, ...]
    """As the study names them."""
    found: tuple[_Found, ...]


def write_earlier(folder: Path, runs: Sequence[str], earlier: Iterable[Earlier]) -> None:
    """Write down what a search begins with; `OSError` if that cannot be done."""
    found = tuple(_Found(source=one.source, changes=one.changes, **vars(one.outcome)) for one in earlier)
    text = _WarmStart(runs=tuple(runs), found=found).model_dump_json(indent=1)
    write_whole(folder / WARM_START, text + "\n", lasting=True)


def read_earlier(folder: Path, runs: Sequence[str]) -> list[Earlier] | None:
    """Return what a search in a run folder began with; None if nothing is written down of these runs.

    Raises:
        UserError: if the file is damaged.
    """
    path = folder / WARM_START
    if not is_file(path):
        return None
    try:
        kept = validate(_WarmStart, read_json(path), str(path))
    except UserError as error:
        advice = f"remove it: the runs of search.warm_start are read again ({', '.join(runs)})"
        raise DamagedRecord(Problem(str(path), "does not hold what the search began with", advice=advice)) from error
    if kept.runs != tuple(runs):
        return None
    return [
        Earlier(one.changes, Outcome(one.values, one.ca_lost, one.held_lost, one.ruled_out, one.epochs), one.source)
        for one in kept.found
    ]
