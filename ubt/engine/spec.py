"""What is known of a stage without running it: inputs and outputs by role, and the settings that make its key."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from ubt.config import Config
from ubt.data.digests import digest_files
from ubt.trials.config import TrialConfig
from ubt.trials.metrics import Metric

Settings = dict[str, JsonValue]


class OfDefense:
    """The settings of a defense's stage: those fields of the defense that the stage's own model has."""

    def __init__(self, model: type[Config]) -> None:
        self._fields = tuple(model.model_fields)

    def __call__(self, trial: TrialConfig) -> Settings:
        """Return them as plain values."""
        return trial.defense.model_dump(mode="json", include=set(self._fields))

    def identity(self, trial: TrialConfig) -> tuple[object, ...]:
        """Return something cheap that is equal for equal settings."""
        return tuple(getattr(trial.defense, field) for field in self._fields)


class OfMetric:
    """The settings of one further metric."""

    def __init__(self, model: type[Metric]) -> None:
        self._model = model

    def __call__(self, trial: TrialConfig) -> Settings:
        """Return them as plain values."""
        return self.identity(trial).as_json()

    def identity(self, trial: TrialConfig) -> Metric:
        """Return something cheap that is equal for equal settings."""
        return next(metric for metric in trial.metrics if isinstance(metric, self._model))


def of_pretrain(trial: TrialConfig) -> Settings:
    """Return the settings that the clean model is trained by, and its own."""
    return {"model": of_model(trial), "pretrain": trial.victim.pretrain.as_json()}


def of_model(trial: TrialConfig) -> Settings:
    """Return the clean model's settings; `UserError` if its checkpoint cannot be read."""
    model = trial.victim.model
    return {**model.as_json(), "checkpoint": _content(model.checkpoint)}


def of_attack(trial: TrialConfig) -> Settings:
    """Return the attack's settings, and whether the pairs came poisoned."""
    given = trial.victim.implant.checkpoint is not None  # then its pairs are poisoned already
    return {"attack": trial.victim.attack.as_json(), "pairs_as_given": given}


def of_implant(trial: TrialConfig) -> Settings:
    """Return how the backdoor is trained in; `UserError` if its checkpoint cannot be read."""
    implant = trial.victim.implant
    work = implant.model_dump(mode="json", exclude={"min_asr"})  # the gate judges the work, it does not change it
    return {**work, "checkpoint": _content(implant.checkpoint)}


def _content(checkpoint: Path | None) -> str | None:
    """Return the digest of a file, read once however many trials use it; `UserError` if it cannot be read."""
    return digest_files([checkpoint], "checkpoint") if checkpoint else None


def of_nothing(trial: TrialConfig) -> Settings:
    """Return no settings: the stage depends on its inputs alone."""
    return {}


@dataclass(frozen=True)
class StageSpec:
    """One row of the table."""

    name: str
    version: int
    """Raised when equal settings would give another artifact, so that old ones are not found any more."""
    needs: tuple[str, ...]
    provides: tuple[str, ...]
    settings: Callable[[TrialConfig], Settings]
    """The settings this stage depends on, and no others: they make its key."""
    run: str
    """`module:function`, imported only when the stage runs."""
    needs_data: bool = True
    """The data's content is part of the key (else it enters through the inputs)."""
    seeded: bool = True
    """The trial's seed is part of the key."""
    sees_poison: bool = False
    """May read which pairs are poisoned and stamp triggers. False for every stage of a defense."""
    epochs: str | None = None
    """The setting that counts epochs, for stages whose first n epochs are the same however many follow."""
    evaluates_each_epoch: bool = False
    """Each epoch's model is evaluated on the validation split (the stage itself never sees the result)."""
    diagnose: str | None = None
    """`module:function` of its diagnostics, which know the poison that the stage does not."""
