"""Outcomes of other studies' runs that a search begins with (`search.warm_start`), read from their records."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import cast

from pydantic import JsonValue

from sweeps.scheduling.outcomes import outcome_over_seeds
from sweeps.search.adaptive import Adaptive
from sweeps.search.base import differing, identity
from sweeps.search.earlier import read_earlier, write_earlier
from sweeps.search.proposals import Changes, Earlier
from sweeps.search.space import contains
from sweeps.study.config import StudyConfig
from ubt.common.errors import Problem, UserError
from ubt.common.paths import RECORDS_FOLDER, STUDY_FILE, is_file
from ubt.common.secrets import without_credentials
from ubt.config import get_path, read_json, validate
from ubt.config.dotted_paths import JsonObject
from ubt.trials.config import TrialConfig
from ubt.trials.failures import Failure
from ubt.trials.migration import migrated_study
from ubt.trials.record import DamagedRecord, TrialRecord, read_record

logger = logging.getLogger(__name__)

_SHOWN = 4
"""Differences that a message names."""


def warm_start(study: StudyConfig, folder: Path | None = None) -> list[Earlier]:
    """Return what a study's search begins with: by the run `folder` if it goes on there, else by the runs it names.

    Raises:
        UserError: if one of them cannot be read, or is of another space or other fixed settings, naming what differs.
    """
    search = study.search
    if not isinstance(search, Adaptive) or not search.warm_start:
        return []
    kept = read_earlier(folder, search.warm_start) if folder else None
    return _earlier(study, [Path(run) for run in search.warm_start]) if kept is None else kept


def keep_warm_start(study: StudyConfig, folder: Path, earlier: list[Earlier]) -> None:
    """Write down, in a run folder, what the search begins with.

    Raises:
        UserError: if the folder cannot be written.
    """
    if not isinstance(study.search, Adaptive) or not study.search.warm_start:
        return
    try:
        write_earlier(folder, study.search.warm_start, earlier)
    except OSError as error:
        advice = "free some space or make it writable; or give another folder with --out"
        raise UserError(Problem(str(folder), f"the run folder cannot be written: {error}", advice=advice)) from error


def warm_start_text(earlier: list[Earlier]) -> str:
    """Say what a search begins with."""
    failed = sum(one.outcome.values is None for one in earlier)
    more = f", {failed} of which failed or were pruned" if failed else ""
    return f"the search begins with {len(earlier)} configurations of other runs{more}; it does not ask for them again"


def _earlier(study: StudyConfig, folders: list[Path]) -> list[Earlier]:
    others, problems = {}, []
    for folder in folders:
        try:
            others[folder] = _study_of(folder)
            problems += _differences(study, others[folder], folder)
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(problems)
    found: dict[str, tuple[Changes, dict[int, TrialRecord], str]] = {}
    for folder, other in others.items():
        for record in _records(folder):
            if (changes := _changes(study, other, record)) is not None:
                _, by_seed, _ = found.setdefault(identity(changes), (changes, {}, f"{folder}/{record.trial}"))
                by_seed.setdefault(record.seed, record)
    told = [
        Earlier(changes, outcome_over_seeds(list(by_seed.values()), study.rule, study.ca_floor), source)
        for changes, by_seed, source in found.values()
    ]
    return [one for one in told if one.outcome.values or one.outcome.ruled_out]


def _study_of(folder: Path) -> StudyConfig:
    path = folder / STUDY_FILE
    if not is_file(path):
        advice = "give the folder of a run, e.g. runs/demo"
        raise UserError(Problem("search.warm_start", f"is no run folder: it has no {STUDY_FILE}", str(folder), advice))
    return validate(StudyConfig, migrated_study(read_json(path)), str(path))


def _records(folder: Path) -> list[TrialRecord]:
    """Return the records that say something of their configurations: what a fault or a mistake ended does not."""
    found = []
    for path in (folder / RECORDS_FOLDER).glob("*.json"):
        try:
            found.append(read_record(path))
        except DamagedRecord as error:
            logger.warning("search.warm_start: %s; it is left out", error.problems[0].said)
    ended = (record for record in found if record.state.ended and record.failed_by in {None, Failure.METHOD})
    return sorted(ended, key=lambda record: record.number)


def _changes(study: StudyConfig, other: StudyConfig, record: TrialRecord) -> Changes | None:
    """Return a trial's configuration as this study has it; None if it lies outside the space, as a base may."""
    space, base = study.search.space, other.base
    values: Changes = {path: record.changes.get(path, get_path(base, path)) for path in space}
    active = study.search.active(values, study.base)
    if not all(contains(space[path], value) for path, value in active.items()):
        return None
    changes = differing(active, study.base)
    try:
        same = _parts(study.trial(changes)) == _parts(TrialConfig.model_validate(record.config))
    except (UserError, ValueError):  # of a kind that there is no more, say
        return None
    return changes if same else None


def _parts(trial: TrialConfig) -> JsonValue:
    return _without_credentials({"victim": trial.victim.as_json(), "defense": trial.defense.as_json()})


def _without_credentials(tree: JsonObject) -> JsonObject:
    return cast(JsonObject, json.loads(without_credentials(json.dumps(tree))))


def _differences(study: StudyConfig, other: StudyConfig, folder: Path) -> list[Problem]:
    """Return one problem that names what differs in space, conditions and fixed settings; none if nothing does."""
    here, there = (_compared(one, study) for one in (study, other))
    differing = [path for path in {**here, **there} if here.get(path) != there.get(path)]
    if not differing:
        return []
    named = [f"{path} is {_text(there, path)} there and {_text(here, path)} here" for path in differing[:_SHOWN]]
    more = [f"and {len(differing) - _SHOWN} more"] if len(differing) > _SHOWN else []
    message = f"is of another space, or other fixed settings: {'; '.join(named + more)}"
    return [Problem("search.warm_start", message, str(folder), "leave it out, or make the studies alike")]


def _compared(study: StudyConfig, searching: StudyConfig) -> dict[str, JsonValue]:
    """Return path → value of what has to be the same: space, conditions, and every setting that is not searched."""
    tree = _without_credentials(cast(JsonObject, json.loads(json.dumps(study.base))))
    searched = tuple(searching.search.space)
    fixed = {path: value for path, value in _leaves(tree) if not _within(path, searched)}
    search = study.search.model_dump(mode="json", include={"space", "when"})
    parts = {f"search.{part}.{path}": value for part in ("space", "when") for path, value in search[part].items()}
    return {**parts, **fixed}


def _within(path: str, searched: tuple[str, ...]) -> bool:
    return any(path == one or path.startswith(f"{one}.") for one in searched)


def _leaves(tree: JsonObject, prefix: str = "") -> Iterator[tuple[str, JsonValue]]:
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _text(values: dict[str, JsonValue], path: str) -> str:
    return json.dumps(values[path]) if path in values else "not set"
