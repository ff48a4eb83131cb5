"""The defended model of the chosen configuration: where the store has it, and how it is written. Loads no torch."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from pydantic import JsonValue

from analysis.findings import Findings
from analysis.points.configurations import Configuration
from sweeps.tracking.payload import leaves, name_of, text_of
from ubt.artifacts.exporting.weights import chain_of, size_of, write_weights
from ubt.artifacts.manifest import ArtifactManifest
from ubt.artifacts.store import ArtifactStore, default_store
from ubt.common.atomic_files import write_whole
from ubt.common.errors import DamagedArtifact, UserError
from ubt.config import validate
from ubt.config.dotted_paths import JsonObject
from ubt.data import content_key
from ubt.engine.graph import build_pipeline
from ubt.models.activation import activation_of
from ubt.models.settings import ModelSettings
from ubt.trials.config import TrialConfig
from ubt.trials.rates import Rates
from ubt.trials.record import TrialRecord

MODEL_FOLDER, WEIGHTS_FILE, NOTE_FILE = "model", "model.safetensors", "model.json"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ChosenModel:
    """The defended model of the chosen configuration, with its first seed."""

    record: TrialRecord
    config: JsonObject
    """With the number of epochs that it is of."""
    store: ArtifactStore
    chain: tuple[ArtifactManifest, ...]
    epoch: int | None = None
    """The epoch that it is of, if that is not the last one of its trial."""

    @property
    def key(self) -> str:
        """Return what tells it from others: the key of its artifact."""
        return self.chain[-1].key

    @property
    def name(self) -> str:
        """Return what MLflow calls it: a name has neither dots nor slashes there."""
        at = f"-epoch-{self.epoch}" if self.epoch else ""
        return re.sub(r"[^\w@+-]+", "-", f"{self.record.study}-{self.record.trial}{at}-cleaned")

    def params(self) -> dict[str, str]:
        """Return its whole configuration, as its trial's run has it."""
        return {name_of(path): text_of(value) for path, value in leaves(self.config)}

    def metrics(self) -> dict[str, float]:
        """Return its rates. Those of its configuration, `chosen/test_asr`, are means where there are several seeds."""
        rates = {f"{split}_{rate}": getattr(of, rate) for split, of in self.rates.items() for rate in ("asr", "ca")}
        return {f"model/{name}": value for name, value in rates.items() if value is not None}

    @property
    def rates(self) -> dict[str, Rates]:
        """Return what was measured of it, by split; of an earlier epoch the test split was not looked at."""
        if not self.epoch:
            found = {"val": self.record.val, "test": self.record.test}
        else:
            found = {"val": next((e.val for _, e in self.record.epochs if e.epoch == self.epoch), None)}
        return {split: rates for split, rates in found.items() if rates}

    def write(self, folder: Path) -> None:
        """Write the weights, and what is known of them beside.

        Raises:
            DamagedArtifact: if the store has lost it meanwhile.
            OSError: if the disk is full or not writable.
        """
        said = self._said()
        texts = {name: text for name, text in said.items() if isinstance(text, str) and text}
        write_weights(self.store, self.chain, folder / WEIGHTS_FILE, {"format": "pt", **texts})
        measured = {split: rates.model_dump(mode="json") for split, rates in self.rates.items()}
        note = {**said, **measured, "config": self.config}
        write_whole(folder / NOTE_FILE, json.dumps(note, indent=1, ensure_ascii=False) + "\n")

    def _said(self) -> dict[str, JsonValue]:
        model = _settings(self.record)
        return {
            "written_by": "ubt-sweeper",
            "model": model.name if model else "",
            "activation": _activation(model),
            "which": "defended",
            "study": self.record.study,
            "trial": self.record.trial,
            **({"epoch": self.epoch} if self.epoch else {}),
            "stage": self.chain[-1].stage,
            "key": self.key,
        }


def chosen_model(findings: Findings, limit_bytes: int) -> ChosenModel | None:
    """Return the chosen model; None without a choice, if the store has it no longer, or it is larger than the limit.

    That of an earlier epoch is there if a trial of this study, or of another one with the same store, has ended at it.
    """
    chosen = findings.chosen
    if chosen is None:
        return None
    try:
        store = ArtifactStore(findings.run.store or default_store())
        for stage, key in _artifacts(chosen):
            if chain := chain_of(store, stage, key):
                epoch = chosen.at.number if chosen.at else None
                found = ChosenModel(chosen.first, chosen.config, store, chain, epoch)
                return found if size_of(chain) <= limit_bytes else None
    except (UserError, DamagedArtifact, OSError) as error:
        _log.debug("the chosen model is not at hand: %s", error)
    return None


def _artifacts(chosen: Configuration) -> Iterator[tuple[str, str]]:
    """Yield stage and key of what may be the defended model, likelier ones first."""
    record = chosen.first
    if chosen.at is None:
        yield from ((stage.stage, stage.key) for stage in reversed(record.stages))
        return
    trial = validate(TrialConfig, record.config, f"record of {record.trial}")
    for node in build_pipeline(trial, record.seed, content_key(trial.victim.data)):
        if node.spec.name == chosen.at.stage:
            yield node.spec.name, node.at(chosen.at.number).key


def _settings(record: TrialRecord) -> ModelSettings | None:
    victim = record.config.get("victim")
    if not isinstance(victim, dict):
        return None
    try:
        return validate(ModelSettings, cast(JsonObject, victim.get("model")), f"record of {record.trial}")
    except UserError:
        return None


def _activation(model: ModelSettings | None) -> str:
    """Return what the network computes with; "" where it cannot be known here, as of a checkpoint that has gone."""
    try:
        return activation_of(model) if model else ""
    except UserError:
        return ""
