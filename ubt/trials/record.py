"""The record of a trial: one JSON document, written whole, the truth that everything later is read from.

Loads no torch, so that reading and planning stay quick.
"""

from __future__ import annotations

import json
import re
from enum import StrEnum
from pathlib import Path

from pydantic import Field, JsonValue

from ubt.common.atomic_files import write_whole
from ubt.common.choice import Candidate, Seen
from ubt.common.errors import Problem, UserError
from ubt.common.secrets import without_credentials
from ubt.config import Config
from ubt.trials.failures import Failure, failure_of
from ubt.trials.gates import GateOutcome
from ubt.trials.labels import NO_LABEL, TrialLabel
from ubt.trials.migration import PACKAGE, installed_version, migrated_record
from ubt.trials.rates import Rates
from ubt.trials.stopping import Pruned

RECORD_VERSION = 3


class DamagedRecord(UserError):
    """A file among the records holds none: a disk was full or is failing. The trial can be run again."""


class State(StrEnum):
    """Where a trial stands."""

    RUNNING = "RUNNING"
    DONE = "DONE"
    PRUNED = "PRUNED"
    FAILED = "FAILED"
    INTERRUPTED = "INTERRUPTED"

    @property
    def ended(self) -> bool:
        """Return whether nothing more will happen to the trial."""
        return self not in {State.RUNNING, State.INTERRUPTED}


class EpochRecord(Config):
    """One epoch of an epoch-wise stage."""

    epoch: int
    """Its number, from 1; 0 for a model that was given instead of trained."""
    seconds: float
    """Seconds of training, without the evaluation of the model."""
    loss: float | None = None
    """Mean loss over its batches, as the stage defines it."""
    val: Rates | None = None
    """Measured after each epoch of stages that change the defended model; never seen by the stage."""
    observed: dict[str, float] = Field(default_factory=dict)
    """What a defender sees of the model without the trigger, labels, or knowing what is poisoned; by name."""


class StageRecord(Config):
    """What one stage of a trial did."""

    stage: str
    """Its name."""
    key: str
    """Fingerprint of the work; its artifact lies in the store under this key."""
    reused: bool
    """Found whole in the store, not computed by this trial."""
    seconds: float
    """Seconds the stage takes from nothing; if it was reused, as measured when it was computed."""
    own_seconds: float | None = None
    """Of those, what the stage's own work takes: its epochs and its output, not their evaluation and publishing."""
    spent_seconds: float = 0.0
    """Seconds this trial spent on it: 0 if reused, a part if it continued from an earlier epoch in the store."""
    complete: bool = True
    """False while the stage is being computed."""
    peak_memory_bytes: int = 0
    """Most memory while it was computed: of the GPU, or of the process on a CPU."""
    node: str = ""
    """Host that computed it, this trial's or another's; empty in records of before it was written down."""
    started_at: str = ""
    """When computing it began, there: UTC time, ISO 8601. Of a stage continued from an earlier epoch, from there on."""
    ended_at: str = ""
    """When it was published; empty while it is being computed."""
    computed_by: str = ""
    """The trial that computed it, `STUDY/TRIAL`: another one, if it was reused."""
    resumed: str = ""
    """`3 of 5`: the epoch at which this run went on with a stage that was ended before; empty if it did not."""
    diagnostics: dict[str, float] = Field(default_factory=dict)
    """What is known of the stage's result given the poison: recall, precision, AUROC, …"""
    epochs: tuple[EpochRecord, ...] = ()
    """Each epoch of a stage that works by epochs, those before a continuation too."""

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


class Attempt(Config):
    """One start of a trial."""

    started_at: str = ""
    """UTC time, ISO 8601; empty where a record of before says only how often the trial was started."""
    node: str = ""
    """Host that it ran on."""
    ended_at: str = ""
    """UTC time, ISO 8601, if the sweep started the trial again."""
    ended_by: str = ""
    """What ended it, if the trial was started again; the last attempt ended as `state` and `reason` say."""
    alone: str = ""
    """What the trial had for itself while it ran, as memory had run out before: `gpu` or `node`."""


class TrialRecord(Config):
    """One trial: what was asked, what each stage did, what came out."""

    version: int = RECORD_VERSION
    """Version of this schema; records of earlier ones are migrated when they are read."""
    study: str
    """Name of the study that the trial is of."""
    trial: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the trial, unique in its study and usable as a file name."""
    number: int
    """Position in the study, from 0."""
    seed: int
    """Seed of the training, the poisoning and the draws of the defense."""
    config: dict[str, JsonValue]
    """`{"victim": …, "defense": …, "metrics": …}` after coercion."""
    changes: dict[str, JsonValue]
    """Dotted path → value, for each leaf that differs from the study's base."""
    label: TrialLabel = NO_LABEL
    """What the design calls the trial: a component left out, or a cell of a comparison."""
    asked_as: str = ""
    """SEARCH/NUMBER of its configuration in a search that learns; empty if the design knew it, and in old records."""
    state: State
    """RUNNING, DONE, PRUNED, FAILED, or INTERRUPTED with its sweep: a resume goes on with it."""
    reason: str = ""
    """Why the trial failed, was pruned or was interrupted; or what it waits for (`waits_for`)."""
    fault: str = ""
    """Kind of the failure: the name of the error's class."""
    lost: bool = False
    """The failure says nothing of the configuration: a worker died, a disk was full. A resume tries again."""
    failure: Failure | None = None
    """What it failed by: `fault`, `mistake` or `method`; null in records of before, which `failed_by` goes by too."""
    pruned: Pruned | None = None
    """Why the trial ended before its last epoch (`search.stopping`), if it did; `reason` says so in words."""
    waits_for: str = ""
    """Key of the stage that another sweep computes, while the trial waits for it."""
    at: str = ""
    """Stage that is being computed, or was when an interruption or its worker's end cut the trial off; else empty."""
    stages: tuple[StageRecord, ...] = ()
    """What its stages did, in their order."""
    gates: tuple[GateOutcome, ...] = ()
    """What the sanity gates between them found, in the same order."""
    classes: tuple[str, ...] = ()
    """Names of the data's classes; `per_class` counts follow their order."""
    clean_val: Rates | None = None
    """The clean model M_c on validation, if its weights were loaded: CA alone. One trained here is judged poisoned."""
    poisoned_val: Rates | None = None
    """The victim on validation, before any defense."""
    poisoned_test: Rates | None = None
    """The victim on the test split, before any defense."""
    val: Rates | None = None
    """The defended model on validation."""
    test: Rates | None = None
    """The defended model on the test split."""
    skipped: dict[str, int] = Field(default_factory=dict)
    """How many images of each of the data's lists were left out because they are broken (`on_broken: skip`)."""
    device: str = ""
    """What it was computed on: `cpu`, `cuda`."""
    device_kind: str = ""
    """The GPU, or the CPU with torch's instructions and threads: bits depend on it. Empty in records of before."""
    device_memory_bytes: int = 0
    """Memory of that GPU as a whole, not the trial's share; 0 on a CPU, and in records of before."""
    commit: str = ""
    """Commit of the code, with a `+` if the tree was changed."""
    versions: dict[str, str] = Field(default_factory=dict)
    """Versions of the libraries that matter."""
    started_at: str = ""
    """UTC time, ISO 8601."""
    seconds: float = 0.0
    """Wall time of the trial in its worker."""
    attempts: tuple[Attempt, ...] = ()
    """Every start of the trial, the newest last: several if a fault ended one, or a resume took it up again."""

    @property
    def failed_by(self) -> Failure | None:
        """Return what the trial failed by, if it did and if that is known: old records may not say so."""
        return (self.failure or failure_of(self.fault, self.lost)) if self.state is State.FAILED else None

    @property
    def runs_again(self) -> str:
        """Return what ended the trial's last run while it waits for another one; empty otherwise."""
        return self.attempts[-1].ended_by if self.state is State.RUNNING and self.attempts else ""

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

    @property
    def nodes(self) -> tuple[str, ...]:
        """Return the nodes that the trial ran on, and those that computed what it reused, in that order."""
        return tuple(dict.fromkeys(filter(None, [*(a.node for a in self.attempts), *(s.node for s in self.stages)])))

    @property
    def stopped_by(self) -> GateOutcome | None:
        """Return the gate that ended the trial; None if none did."""
        return next((gate for gate in self.gates if gate.outcome == "stopped"), None)


def write_record(folder: Path, record: TrialRecord) -> Path:
    """Write `folder/<trial>.json` whole or not at all, and return its path.

    That of a trial that has ended has reached the disk then; one that runs is written again in a moment.

    Raises:
        OSError: if the disk is full or not writable.
    """
    # One line for a list of counts: there are a thousand classes in ImageNet. No string in JSON holds a line's end.
    text = _COUNTS.sub(lambda found: re.sub(r"\s+", "", found[0]), record.model_dump_json(indent=1))
    text = without_credentials(text)  # a library may have put one into a reason
    return write_whole(folder / f"{record.trial}.json", text + "\n", lasting=record.state.ended)


_COUNTS = re.compile(r"\[\n\s+\d+(?:,\n\s+\d+)*\n\s+\]")


def read_record(path: Path) -> TrialRecord:
    """Return the record in `path`; one of an earlier version is read as if it had been written by this one.

    Raises:
        DamagedRecord: if the file holds no record: it is empty, cut off, or spoilt otherwise.
        UserError: if it cannot be read, or a later version of the package wrote it.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(Problem(str(path), f"cannot be read: {error.strerror or error}")) from error
    document: object = None
    try:
        document = json.loads(content)
        if isinstance(document, dict) and document.get("version", RECORD_VERSION) in range(1, RECORD_VERSION + 1):
            return TrialRecord.model_validate(migrated_record(document))
        reason = f"is no record of version 1 to {RECORD_VERSION}"
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        # RecursionError of what is nested too deep, the last three of what migrates it
        reason = f"is not a trial record: {' '.join(str(error).split())}"
    if (writer := _other_version(document)) is not None:
        advice = "use the version of ubt that wrote it, or remove the file to run the trial again"
        raise UserError(Problem(str(path), reason, writer, advice))
    advice = "go on with --resume, which sets it aside and runs the trial again, or remove the file"
    raise DamagedRecord(Problem(str(path), reason, advice=advice))


def _other_version(document: object) -> int | str | None:
    """Return the version of records, or of the package, that wrote what this one cannot read; None if it should."""
    if not isinstance(document, dict):
        return None
    if isinstance(number := document.get("version"), int) and number > RECORD_VERSION:
        return number
    versions = document.get("versions")
    writer = versions.get(PACKAGE) if isinstance(versions, dict) else None
    return writer if isinstance(writer, str) and writer != installed_version() else None


def read_records(folder: Path) -> list[TrialRecord]:
    """Return all records of a run folder's `records/`, by number.

    Raises:
        UserError: if a file is no record.
    """
    return sorted((read_record(path) for path in folder.glob("*.json")), key=lambda record: record.number)
