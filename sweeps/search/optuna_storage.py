"""Optuna's storage, a journal in the run folder: a cache of the records, rebuilt where it is damaged or lost."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.storages import InMemoryStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial

from ubt.common.atomic_files import set_aside, write_whole
from ubt.common.errors import Problem, UserError

SOURCE = "source"
"""Attribute of trials that other runs have run: RUN/TRIAL."""


@dataclass(frozen=True)
class Storage:
    """A study as Optuna keeps it."""

    study: optuna.Study
    damage: str = ""
    """What was wrong with the journal, which does not have all that it had; empty if nothing was."""


def open_storage(journal: Path, name: str) -> Storage:
    """Open a study's journal; one that cannot be read is set aside from its first damaged line on.

    No other process may have it open.

    Raises:
        UserError: if it cannot be written.
    """
    try:
        Path(f"{journal}.lock").unlink(missing_ok=True)  # a killed process's: Optuna would wait for it half a minute
        damage = "" if journal.exists() else "is missing"
        if journal.exists() and (line := _damaged_line(journal)):
            damage = f"is damaged in line {line}, and set aside as {_keep_lines(journal, line - 1).name}"
        try:
            return Storage(_open(journal, name), damage)
        except OSError:
            raise
        except Exception as error:  # noqa: BLE001 — each line is an operation that Optuna carries out unchecked
            aside = set_aside(journal)
            reason = f"cannot be read ({type(error).__name__}: {error}), and is set aside as {aside.name}"
            return Storage(_open(journal, name), reason)
    except OSError as error:
        advice = "free some space or make it writable, then go on with --resume"
        raise UserError(Problem(str(journal), f"the search cannot be written down: {error}", advice=advice)) from error


def renewed(journal: Path, name: str) -> tuple[optuna.Study, Path]:
    """Set a journal aside and begin a new one; return its study, and where the old one is."""
    aside = set_aside(journal)
    return _open(journal, name), aside


def tell_earlier(study: optuna.Study, told: Mapping[str, FrozenTrial]) -> bool:
    """Have in a study what other runs have found out, each by its source; False if it has something else.

    That comes before the study's own trials, and is added to one that has none yet, or not all of it.
    """
    there = {source: trial for trial in study.get_trials(deepcopy=False) if (source := source_of(trial))}
    if any(source not in told or not _alike(trial, told[source]) for source, trial in there.items()):
        return False
    study.add_trials(trial for source, trial in told.items() if source not in there)
    return True


def source_of(trial: FrozenTrial) -> str:
    """Return the trial of another run that this one stands for; empty if it was asked here."""
    source: str = trial.user_attrs.get(SOURCE, "")
    return source


def _alike(one: FrozenTrial, other: FrozenTrial) -> bool:
    return (one.params, one.state, one.values, one.constraints) == (
        other.params,
        other.state,
        other.values,
        other.constraints,
    )


def copied(study: optuna.Study) -> optuna.Study:
    """Return a copy of a study in memory."""
    name, storage = study.study_name, InMemoryStorage()
    optuna.copy_study(from_study_name=name, from_storage=study._storage, to_storage=storage)
    return optuna.load_study(study_name=name, storage=storage)


def _open(journal: Path, name: str) -> optuna.Study:
    storage = JournalStorage(JournalFileBackend(str(journal)))
    return optuna.create_study(
        storage=storage, study_name=name, directions=["minimize", "maximize"], load_if_exists=True
    )


def _damaged_line(journal: Path) -> int:
    """Return the first line, from 1, that is no operation; 0 if all are.

    What a kill or a full disk has left of the last line is cut off: Optuna would write behind it and read neither.
    """
    content = journal.read_bytes()
    if cut := content[content.rfind(b"\n") + 1 :]:
        with journal.open("r+b") as stream:
            stream.truncate(len(content) - len(cut))
    lines = content.split(b"\n")[:-1]
    return next((number for number, line in enumerate(lines, 1) if not _is_operation(line)), 0)


def _is_operation(line: bytes) -> bool:
    try:
        operation = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(operation, dict) and isinstance(operation.get("op_code"), int)


def _keep_lines(journal: Path, lines: int) -> Path:
    """Keep a journal's first lines; return where all of it is kept."""
    whole = b"".join(journal.read_bytes().splitlines(keepends=True)[:lines])
    aside = set_aside(journal)
    write_whole(journal, whole, lasting=True)
    return aside
