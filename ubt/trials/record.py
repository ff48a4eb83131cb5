"""The record of a trial: one JSON document, written whole, the truth that everything later is read from.

Loads no torch, so that reading and planning stay quick.
"""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple, Self

from pydantic import Field, JsonValue, model_validator

from ubt.common.atomic_files import write_whole
from ubt.common.choice import Candidate, Seen
from ubt.common.errors import Problem, UserError
from ubt.config import Config
from ubt.trials.labels import NO_LABEL, TrialLabel
from ubt.trials.migration import migrated_record

RECORD_VERSION = 2


class State(StrEnum):
    """Where a trial stands."""

    RUNNING = "RUNNING"
    DONE = "DONE"
    PRUNED = "PRUNED"
    FAILED = "FAILED"

    @property
    def ended(self) -> bool:
        """Return whether nothing more will happen to the trial."""
        return self is not State.RUNNING


class AttackRate(NamedTuple):
    """An attack success rate and the ends of its Wilson 95 % interval."""

    rate: float
    low: float
    high: float


class Rates(Config):
    """What zero-shot classification on one split shows. Rates are fractions in [0, 1].

    Without a known attack nothing can be stamped: what is measured on triggered images is None then, all of it.
    """

    ca: float
    """Clean accuracy: top-1 on clean images."""
    ca_images: int
    asr: float | None = None
    """Attack success rate: of triggered images of other classes, those classified as the target."""
    asr_images: int | None = None
    ca_low: float
    ca_high: float
    """Wilson 95 % interval of `ca`."""
    asr_low: float | None = None
    asr_high: float | None = None
    """Wilson 95 % interval of `asr`."""
    triggered_accuracy: float | None = None
    """Top-1 accuracy on those triggered images under their true labels."""
    ca_top5: float | None = None
    """Top-5 accuracy on clean images (of all classes if there are fewer); None in records of before it was measured."""

    @model_validator(mode="after")
    def _all_of_the_attack_or_nothing(self) -> Self:
        triggered = (self.asr, self.asr_images, self.asr_low, self.asr_high, self.triggered_accuracy)
        if None in triggered and any(value is not None for value in triggered):
            raise ValueError("what is measured on triggered images is measured together: some of it is missing")
        return self

    def __str__(self) -> str:
        """Return both rates in short: `ASR 0.036 CA 0.812`, `ASR – CA 0.812`."""
        return f"ASR {'–' if self.asr is None else f'{self.asr:.3f}'} CA {self.ca:.3f}"

    @property
    def attacked(self) -> AttackRate | None:
        """Return the attack success rate with its interval; None if no attack is known."""
        if self.asr is None or self.asr_low is None or self.asr_high is None:
            return None
        return AttackRate(self.asr, self.asr_low, self.asr_high)


class EpochRecord(Config):
    """One epoch of an epoch-wise stage."""

    epoch: int
    seconds: float
    loss: float | None = None
    val: Rates | None = None
    """Measured after each epoch of stages that change the defended model; never seen by the stage."""
    observed: dict[str, float] = Field(default_factory=dict)
    """What a defender sees of the model without the trigger, labels, or knowing what is poisoned; by name."""


class StageRecord(Config):
    """What one stage of a trial did."""

    stage: str
    key: str
    """Fingerprint of the work; its artifact lies in the store under this key."""
    reused: bool
    """Found whole in the store, not computed by this trial."""
    seconds: float
    """Seconds the stage takes from nothing; if it was reused, as measured when it was computed."""
    own_seconds: float | None = None
    """Of those, what the stage's own work takes: its epochs and its output, without their evaluation and publishing,
    which depend on what else the study looks at."""
    spent_seconds: float = 0.0
    """Seconds this trial spent on it: 0 if reused, a part if it continued from an earlier epoch in the store."""
    complete: bool = True
    """False while the stage is being computed."""
    peak_memory_bytes: int = 0
    diagnostics: dict[str, float] = Field(default_factory=dict)
    """What is known of the stage's result given the poison: recall, precision, AUROC, …"""
    epochs: tuple[EpochRecord, ...] = ()

    @property
    def work_seconds(self) -> float:
        """Return the seconds of the stage's own work, also of records from before that was distinguished."""
        if self.own_seconds is not None:
            return self.own_seconds
        evaluated = any(epoch.val for epoch in self.epochs)
        return sum(epoch.seconds for epoch in self.epochs) if evaluated else self.seconds

    @property
    def saved_seconds(self) -> float:
        """Return what the stage would have taken more, had the trial run by itself."""
        return max(0.0, self.seconds - self.spent_seconds)


class TrialRecord(Config):
    """One trial: what was asked, what each stage did, what came out."""

    version: int = RECORD_VERSION
    study: str
    trial: str
    """Name of the trial, unique in its study and usable as a file name."""
    number: int
    """Position in the study, from 0."""
    seed: int
    config: dict[str, JsonValue]
    """`{"victim": …, "defense": …}` after coercion."""
    changes: dict[str, JsonValue]
    """Dotted path → value, for each leaf that differs from the study's base."""
    label: TrialLabel = NO_LABEL
    """What the design calls the trial: a component left out, or a cell of a comparison."""
    state: State
    reason: str = ""
    """Why the trial failed or was pruned."""
    fault: str = ""
    """Kind of the failure: the name of the error's class."""
    lost: bool = False
    """The failure says nothing of the configuration: a worker died, a disk was full. A resume tries again."""
    stages: tuple[StageRecord, ...] = ()
    poisoned_val: Rates | None = None
    poisoned_test: Rates | None = None
    """The victim before any defense."""
    val: Rates | None = None
    test: Rates | None = None
    """The defended model."""
    skipped: dict[str, int] = Field(default_factory=dict)
    """How many images of each of the data's lists were left out because they are broken (`on_broken: skip`)."""
    device: str = ""
    commit: str = ""
    """Commit of the code, with a `+` if the tree was changed."""
    versions: dict[str, str] = Field(default_factory=dict)
    """Versions of the libraries that matter."""
    started_at: str = ""
    """UTC time, ISO 8601."""
    seconds: float = 0.0
    """Wall time of the trial in its worker."""
    attempts: int = 1
    """How often the trial was started; more than once if its worker or node died."""

    @property
    def observed(self) -> dict[str, float]:
        """Return what a defender sees of the defended model; {} of a defense that selects no pairs to look at."""
        last = [stage.epochs[-1].observed for stage in self.stages if stage.complete and stage.epochs]
        return next(filter(None, reversed(last)), {})

    @property
    def candidate(self) -> Candidate | None:
        """Return what the choice looks at; None if the defended model or the poisoned one was not measured."""
        if self.val is None or self.poisoned_val is None:
            return None
        ca_lost = self.poisoned_val.ca - self.val.ca
        return Candidate(self.val.asr, self.val.ca, ca_lost, self.number, Seen.of(self.observed))

    @property
    def epochs(self) -> tuple[tuple[str, EpochRecord], ...]:
        """Return every evaluated epoch with the name of its stage, in order."""
        return tuple((stage.stage, epoch) for stage in self.stages for epoch in stage.epochs if epoch.val)


def write_record(folder: Path, record: TrialRecord) -> Path:
    """Write `folder/<trial>.json` whole or not at all, and return its path."""
    return write_whole(folder / f"{record.trial}.json", record.model_dump_json(indent=1) + "\n")


def read_record(path: Path) -> TrialRecord:
    """Return the record in `path`; one of an earlier version is read as if it had been written by this one.

    Raises:
        UserError: if the file is no record, or of a later version.
    """
    advice = "remove the file to run the trial again, or use the version of ubt that wrote it"
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        version = document.get("version", RECORD_VERSION)
        if version in range(1, RECORD_VERSION + 1):  # of another version nothing is known, not even its fields
            return TrialRecord.model_validate(migrated_record(document))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:  # the last three of what migrates it
        raise UserError(Problem(str(path), f"is not a trial record: {error}", advice=advice)) from error
    raise UserError(Problem(str(path), f"is no record of version 1 to {RECORD_VERSION}", version, advice))


def read_records(folder: Path) -> list[TrialRecord]:
    """Return all records of a run folder's `records/`, by number.

    Raises:
        UserError: if a file is no record.
    """
    return sorted((read_record(path) for path in folder.glob("*.json")), key=lambda record: record.number)
