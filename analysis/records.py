"""A run folder as read from disk: what the study asked, and the record of every trial."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from analysis.formatting import count, short_names
from ubt.artifacts.remote_folder import at_hand, shown
from ubt.common.choice import CA_FLOOR, EpochsCounted, RuleName
from ubt.common.errors import Problem, UserError
from ubt.common.paths import RECORDS_FOLDER, STUDY_FILE, is_file, is_folder
from ubt.config import get_path, read_json, validate
from ubt.trials.budget import Budget, Spent
from ubt.trials.migration import migrated_study
from ubt.trials.planned import PLAN_FILE, PlannedCosts
from ubt.trials.record import TrialRecord, read_records

PARTS = (STUDY_FILE, PLAN_FILE, RECORDS_FOLDER)
"""What of a run folder is read: of one behind an address, what is fetched."""


class _StudyPart(BaseModel):
    """Takes what reading needs from a study and ignores the rest, so that old and new studies can be read."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class _Objectives(_StudyPart):
    ca_floor: float = Field(default=CA_FLOOR, ge=0, le=1)
    rule: RuleName = "lowest_asr"
    epochs: EpochsCounted = "last"
    """Studies of before it could be said chose among the ends."""


class _Search(_StudyPart):
    design: str = ""
    space: dict[str, JsonValue] | None = None
    components: tuple[str, ...] = ()
    budget: Budget | None = None


class _Resources(_StudyPart):
    gpus_per_trial: float = 0.0


class _Study(_StudyPart):
    name: str
    objectives: _Objectives = _Objectives()
    search: _Search | None = None
    resources: _Resources = _Resources()
    store: str | None = None


@dataclass(frozen=True)
class RunRecords:
    """The study of a run and the records of its trials; `analysis.Run` shows them as tables."""

    folder: Path
    name: str
    ca_floor: float
    """How much clean accuracy, as a fraction, a chosen trial may lose against the poisoned model."""
    space: tuple[str, ...]
    """Dotted paths of the search space, in the study's order."""
    records: tuple[TrialRecord, ...]
    """By number."""
    study_json: str = "{}"
    """The whole study as configured, with today's names, to be shown."""
    rule: RuleName = "lowest_asr"
    """By which rule a trial is chosen: see `ubt.common.choice`."""
    store: str | None = None
    """Where the study keeps artifacts; None for the default store of `ubt`."""
    budget: Budget | None = None
    """What the study may spend."""
    gpus: float = 0.0
    """GPUs of one trial."""
    planned: PlannedCosts | None = None
    """What it was planned to take; None if nothing says so."""
    design: str = ""
    """How configurations are laid out over the space; "" where an old study does not say."""
    components: tuple[str, ...] = ()
    """What a leave-one-out design was to leave out, one at a time."""
    epochs: EpochsCounted = "last"
    """Which epochs of a configuration may be chosen."""

    @property
    def every_epoch(self) -> bool:
        """Return whether configurations compete at each of their epochs: not where they are compared as they are."""
        return self.epochs == "every" and not self.ablation and not self.compared

    @property
    def ablation(self) -> bool:
        """Return whether the run asks what parts and settings of its base are worth, and not which settings to take."""
        return self.leaves_out or self.design in {"ofat", "pairs"}

    @property
    def leaves_out(self) -> bool:
        """Return whether trials leave out components of the base."""
        return any(record.label.leaves_out for record in self.records)

    @cached_property
    def spent(self) -> Spent:
        """Return what the run has spent."""
        return Spent.of(self.records, self.gpus)

    @property
    def budget_text(self) -> str:
        """Say what is used of the study's budget; nothing without one."""
        return f" Of the budget are used {self.budget.told(self.spent)}." if self.budget else ""

    @cached_property
    def settings(self) -> tuple[str, ...]:
        """Return every path of interest: the search space, then all else that some trial changed."""
        changed = (path for record in self.records for path in record.changes)
        return tuple(dict.fromkeys((*self.space, *changed)))

    @cached_property
    def setting_names(self) -> dict[str, str]:
        """Return dotted path → short name, for every path of interest."""
        return short_names(self.settings)

    @cached_property
    def compared(self) -> str:
        """Return what a comparison compares, in words; "" for a run of any other design."""
        cells = [cell for record in self.records if (cell := record.label.cell)]
        defenses, attacks = {cell.defense for cell in cells}, {cell.attack for cell in cells}
        return f"{count(len(defenses), 'defense')} against {count(len(attacks), 'attack')}" if cells else ""

    @cached_property
    def knobs(self) -> tuple[str, ...]:
        """Return the searched paths; without a search space, what trials changed of the settings of the base.

        (Another defense brings settings of its own; they are no knobs of the one that is studied.)
        """
        if self.space:
            return self.space
        base = next((record for record in self.records if not record.changes), None)
        return tuple(path for path in self.settings if base is None or has_path(base.config, path))


def has_path(config: Mapping[str, JsonValue], path: str) -> bool:
    """Return whether a configuration has a setting."""
    try:
        get_path(config, path)
    except KeyError:
        return False
    return True


def value_at(config: Mapping[str, JsonValue], path: str) -> JsonValue:
    """Return the value of a setting; None where a configuration has none: its defense has no such setting."""
    try:
        return get_path(config, path)
    except KeyError:
        return None


def read_run(folder: Path | str) -> RunRecords:
    """Read a run folder, also one that version 0.1 wrote; of one behind an address a copy in the cache.

    Raises:
        UserError: if the folder is no run, its study or a record cannot be read, or there are no records.
    """
    with at_hand(folder, PARTS) as here:
        return _read(here, shown(folder))


def _read(folder: Path, said: str) -> RunRecords:
    _require_run(folder, said)
    tree = migrated_study(read_json(folder / STUDY_FILE))
    study = validate(_Study, tree, STUDY_FILE)
    records = tuple(read_records(folder / RECORDS_FOLDER))
    if not records:
        advice = "start the sweep, or wait until its first trial has begun"
        raise UserError(Problem(f"{said}/{RECORDS_FOLDER}", "holds no trial records yet", advice=advice))
    return RunRecords(
        folder=folder,
        name=study.name,
        ca_floor=study.objectives.ca_floor,
        rule=study.objectives.rule,
        space=tuple((study.search.space if study.search else None) or ()),
        design=study.search.design if study.search else "",
        components=study.search.components if study.search else (),
        records=records,
        study_json=json.dumps(tree, indent=2, ensure_ascii=False),
        store=study.store,
        budget=study.search.budget if study.search else None,
        gpus=study.resources.gpus_per_trial,
        planned=_planned(folder / PLAN_FILE),
        epochs=study.objectives.epochs,
    )


def _planned(path: Path) -> PlannedCosts | None:
    """Return what a run was planned to take; None if the file is not there or spoilt: no report waits for it."""
    try:
        return PlannedCosts.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def _require_run(folder: Path, said: str) -> None:
    missing = [
        Problem(f"{said}/{name}", f"{what} is missing", advice=_advice(folder))
        for name, what, found in (
            (STUDY_FILE, "the study of the run", is_file(folder / STUDY_FILE)),
            (RECORDS_FOLDER, "the folder of trial records", is_folder(folder / RECORDS_FOLDER)),
        )
        if not found
    ]
    if missing:
        raise UserError(missing[0] if len(missing) == 1 else [Problem(said, "is no run folder"), *missing])


def _advice(folder: Path) -> str:
    if not is_folder(folder):
        return "there is no such folder; give the one that the sweep names when it starts"
    runs = sorted(child.name for child in folder.iterdir() if (child / STUDY_FILE).is_file())
    if runs:
        return f"give one of the runs inside it: {', '.join(runs[:5])}{' …' if len(runs) > 5 else ''}"
    return f"a run folder holds {STUDY_FILE} and {RECORDS_FOLDER}/; give the one that the sweep named"
