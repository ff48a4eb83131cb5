"""Files that are made for MLflow when a sweep has ended: figures as images, and the chosen model. Loads no torch."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import cast

from pydantic import JsonValue

from analysis.findings import Findings
from ubt.artifacts.manifest import ArtifactManifest
from ubt.artifacts.store import ArtifactStore, default_store
from ubt.artifacts.weights import chain_of, size_of, write_weights
from ubt.common.atomic_files import write_whole
from ubt.common.errors import DamagedArtifact, UserError
from ubt.common.paths import FIGURES_FOLDER
from ubt.config import validate
from ubt.config.dotted_paths import JsonObject
from ubt.models.activation import activation_of
from ubt.models.settings import ModelSettings
from ubt.trials.record import TrialRecord

MODEL_FOLDER, WEIGHTS_FILE, NOTE_FILE = "model", "model.safetensors", "model.json"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MadeFiles:
    """What is made of a run's findings, beside its report."""

    findings: Findings
    model_limit_bytes: int

    @cached_property
    def model(self) -> ChosenModel | None:
        """Return the chosen model, if it is at hand and small enough."""
        return chosen_model(self.findings, self.model_limit_bytes) if self.model_limit_bytes else None

    @property
    def names(self) -> list[str]:
        """Return where the files will lie, the model's by its key: equal ones are equal files."""
        figures = [FIGURES_FOLDER] if self.findings.measured else []
        return [*figures, *([f"{MODEL_FOLDER}/{self.model.key}"] if self.model else [])]

    def write(self, folder: Path) -> None:
        """Write them. One that cannot be made is left out: neither a figure nor a model is worth the rest.

        Raises:
            OSError: if the disk is full or not writable.
        """
        from analysis.paper.stills import stills  # noqa: PLC0415 — matplotlib

        for name, image in stills(self.findings).items() if self.findings.measured else ():
            write_whole(folder / FIGURES_FOLDER / f"{name}.png", image)
        if self.model:
            try:
                self.model.write(folder / MODEL_FOLDER)
            except DamagedArtifact as error:
                _log.warning("MLflow does not get the chosen model: %s", error)


@dataclass(frozen=True)
class ChosenModel:
    """The defended model of the chosen configuration, with its first seed."""

    record: TrialRecord
    store: ArtifactStore
    chain: tuple[ArtifactManifest, ...]

    @property
    def key(self) -> str:
        """Return what tells it from others: the key of its artifact."""
        return self.chain[-1].key

    def write(self, folder: Path) -> None:
        """Write the weights, and what is known of them beside.

        Raises:
            DamagedArtifact: if the store has lost it meanwhile.
            OSError: if the disk is full or not writable.
        """
        said = self._said()
        texts = {name: text for name, text in said.items() if isinstance(text, str) and text}
        write_weights(self.store, self.chain, folder / WEIGHTS_FILE, {"format": "pt", **texts})
        rates = {"val": self.record.val, "test": self.record.test}
        measured = {name: found.model_dump(mode="json") for name, found in rates.items() if found}
        note = {**said, **measured, "config": self.record.config}
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
            "stage": self.chain[-1].stage,
            "key": self.key,
        }


def chosen_model(findings: Findings, limit_bytes: int) -> ChosenModel | None:
    """Return the chosen model; None without a choice, if the store has it no longer, or it is larger than the limit.

    None also of an earlier epoch, whose weights are not kept: a sweep that is complete has run a trial that ends there.
    """
    if findings.chosen is None or findings.chosen.at:
        return None
    record = findings.chosen.first
    try:
        store = ArtifactStore(findings.run.store or default_store())
        for stage in reversed(record.stages):
            if chain := chain_of(store, stage.stage, stage.key):
                return ChosenModel(record, store, chain) if size_of(chain) <= limit_bytes else None
    except (UserError, DamagedArtifact, OSError) as error:
        _log.debug("the chosen model is not at hand: %s", error)
    return None


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
