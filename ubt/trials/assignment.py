"""What a worker is given to do: one trial, completely described in plain values. Loads no torch."""

from __future__ import annotations

import json
from typing import cast

from pydantic import Field, JsonValue

from ubt.common.secrets import without_credentials
from ubt.config import Config
from ubt.config.dotted_paths import JsonObject
from ubt.trials.gates import Gates
from ubt.trials.labels import NO_LABEL, TrialLabel
from ubt.trials.record import State, TrialRecord
from ubt.trials.stopping import StopRule


class PlannedFile(Config):
    """A file that a trial reads from the disk of its node, as it was where the study was planned."""

    where: str
    """The setting that names it."""
    path: str
    size_bytes: int
    sha256: str
    """Over its content (`ubt.data.digests.digest_files`)."""


class Assignment(Config):
    """One trial of a study, and where its artifacts belong."""

    study: str
    trial: str
    number: int
    seed: int
    config: dict[str, JsonValue]
    """`{"victim": …, "defense": …}`."""
    changes: dict[str, JsonValue] = Field(default_factory=dict)
    label: TrialLabel = NO_LABEL
    """What the design calls the trial."""
    asked_as: str = ""
    """Its configuration's place in a search that learns from results; see `TrialRecord`."""
    data_key: str
    """Fingerprint of the data's content, computed once, when the study was planned."""
    files: tuple[PlannedFile, ...] = ()
    """What else the trial reads from the disk of its node: weights, triggers, lists, plug-ins."""
    keys: tuple[str, ...] = ()
    """Of the stages, as they were planned; empty if they were not."""
    store: str
    threads: int = 1
    """CPU threads that the trial computes with."""
    gpus: float = 0
    """GPUs that the trial is given."""
    keep_epochs: dict[str, tuple[int, ...]] = Field(default_factory=dict)
    """Stage → epochs that other trials may continue from, to be published with the optimizer's memory."""
    gates: Gates = Gates()
    """What is asked of the stages' results before the trial goes on; no part of its configuration."""
    stopping: StopRule | None = None
    """By what the trial is ended before its last epoch; null if it is not."""
    alone: str = ""
    """What it is to have for itself while it computes, as memory has run out before: `gpu` or `node`."""
    stall_seconds: float = 0.0
    """After so long without progress a stage stands still, and the trial is ended; never, if 0."""
    stall_seconds_of: dict[str, float] = Field(default_factory=dict)
    """The same of single stages, which have taken long before."""
    save_seconds: float = 300.0
    """A stage saves what continuing it needs after an epoch, if it has not for so long."""
    only: tuple[str, ...] = ()
    """Keys of the stages to compute, in a run beside the trial that is at another one; all if empty."""
    run: str = ""
    """What such a run is called."""
    plugins: tuple[str, ...] = ()
    """Modules that the worker imports before it checks the configuration."""
    commit: str = ""

    @property
    def name(self) -> str:
        """Return what this run is called: the trial, or a run beside it."""
        return self.run or self.trial

    @property
    def recorded_config(self) -> JsonObject:
        """Return the configuration as records have it: without users and passwords in addresses."""
        return _shown(self.config)

    def record(self, state: State, reason: str = "") -> TrialRecord:
        """Return the record of this trial before anything has run."""
        return TrialRecord(
            study=self.study,
            trial=self.trial,
            number=self.number,
            seed=self.seed,
            config=self.recorded_config,
            changes=_shown(self.changes),
            label=self.label,
            asked_as=self.asked_as,
            state=state,
            reason=reason,
            commit=self.commit,
        )


def _shown(tree: JsonObject) -> JsonObject:
    text = json.dumps(tree)
    shown = without_credentials(text)
    return tree if shown == text else cast(JsonObject, json.loads(shown))
