"""What is known of a stage without running it: inputs and outputs by role, and the settings that make its key.

Loads no torch: functions are named, and imported when a stage runs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from pydantic import JsonValue

from ubt.attacks import ATTACKS
from ubt.common.errors import Problem, UserError
from ubt.common.registry import Origin, Registry
from ubt.config import Config
from ubt.config.base import Function, StageConfig, kind_of
from ubt.data.digests import digest_files
from ubt.defenses.detectors import DETECTORS, Detector
from ubt.models.activation import what_differs
from ubt.models.settings import LOCAL_DIR
from ubt.models.weight_files import described_by
from ubt.trials.config import TrialConfig
from ubt.trials.metrics import METRICS, Metric
from ubt.trials.poison import GivenPoison

Settings = dict[str, JsonValue]

PAIRS, MANIFEST = "pairs", "manifest"
"""The two roles that the poison stage fills: D as anyone finds it, and the list of what is poisoned in it."""
MANIFEST_FILE = "poison.manifest"
"""What the poison stage calls the list of given poison among its files; an attack's are called like its fields."""
DETECT = "detect_"
"""Begins the name of each detector's stage."""


class SettingsOf(Protocol):
    """Which of a trial's settings a stage depends on."""

    def __call__(self, trial: TrialConfig, /) -> Settings:
        """Return them as plain values: they, and no others, make the stage's key."""

    def identity(self, trial: TrialConfig, /) -> object:
        """Return something cheap that is equal only for equal settings, as long as the trial's victim lives."""


@dataclass(frozen=True)
class StageSpec:
    """One registered stage.

    Stages are linked by *role*. Several may provide one role (`clean`: trained here or loaded); the last one before a
    stage fills it, so a defense is a plain tuple of names and the pipeline has no branches.
    """

    name: str
    version: int
    """Raised when equal settings would give another artifact, so that old ones are not found any more."""
    needs: tuple[str, ...]
    provides: tuple[str, ...]
    settings: SettingsOf
    run: Function
    """The stage's function of its context: it returns an `Output`, or yields an `Epoch` after each."""
    needs_data: bool = True
    """The data's content is part of the key (else it enters through the inputs)."""
    seeded: bool = True
    """The trial's seed is part of the key."""
    sees_poison: bool = False
    """Is given a `PrivilegedContext`: the manifest, the data and the evaluator. False for every stage of a defense."""
    epochs: str | None = None
    """The setting that counts epochs, for stages whose first n epochs are the same however many follow."""
    evaluates_each_epoch: bool = False
    """Each epoch's model is evaluated on the validation split (the stage itself never sees the result)."""
    diagnose: Function | None = None
    """Its diagnostics: a function of context, output and poison manifest, which the stage does not know."""
    observe: Function | None = None
    """What a defender sees of the model after each epoch: a function of the stage's own context, which knows nothing of
    the poison, that returns a function of the model to numbers by name."""
    gates: tuple[Function, ...] = ()
    """Sanity gates behind it (`ubt.engine.gates`): functions of what is known of the finished artifact, some of it only
    by those who know the poison, that say whether it makes sense to go on from there."""
    files: Callable[[TrialConfig], dict[str, Path]] = lambda _: {}
    """Files that the stage reads; their content is among the settings, their paths are not."""
    work: Function | None = None
    """How much work it is, as a function of the trial and of how much data there is: see `ubt.engine.work`."""

    def __post_init__(self) -> None:
        """Refuse a stage that would be given the list of what is poisoned without being marked for it."""
        if MANIFEST in self.needs and not self.sees_poison:
            raise ValueError(f"stage `{self.name}` needs the manifest, and is not marked `sees_poison`")

    @property
    def module(self) -> str:
        """Name of the module that holds the stage's function."""
        return self.run.partition(":")[0] if isinstance(self.run, str) else self.run.__module__


STAGES: Registry[StageSpec] = Registry("stage", "ubt.stages", lambda spec: spec.name, "ubt.stages", StageSpec)


@cache
def stage_named(name: str) -> StageSpec:
    """Return a registered stage, or that of a detector (`detect_KIND`) or of a metric (its kind).

    Raises:
        UserError: if there is none of that name.
    """
    if name.startswith(DETECT):
        return _detector_stage(DETECTORS.get(name.removeprefix(DETECT)))
    return stage_of_metric(name) if name not in STAGES and name in METRICS else STAGES.get(name)


def stage_of_metric(kind: str) -> StageSpec:
    """Return the stage of a further metric.

    Raises:
        UserError: if there is no such metric, or its kind, which its stage is called by, is taken.
    """
    return _metric_stage(METRICS.get(kind))


@cache
def _metric_stage(metric: type[Metric]) -> StageSpec:
    kind = kind_of(metric)
    taken = {role for spec in STAGES.loaded() for role in (spec.name, *spec.provides)}
    if kind in taken or kind in STAGES or kind.startswith(DETECT):
        message = "a stage, or what one provides, is called like this metric"
        raise UserError(Problem(f"metric `{kind}`", message, advice="rename the metric"))
    return _stage_of(metric, kind, (kind,), OfMetric(kind), sees_poison=True)


def stage_names() -> tuple[str, ...]:
    """Return the names of all stages there are."""
    return (*STAGES.names(), *(DETECT + kind for kind in DETECTORS.names()), *METRICS.names())


def stage_origin(name: str) -> Origin | None:
    """Return where a stage comes from; None for the package's own.

    Raises:
        UserError: if there is none of that name.
    """
    if name.startswith(DETECT):
        return DETECTORS.origin(name.removeprefix(DETECT))
    return METRICS.origin(name) if name not in STAGES and name in METRICS else STAGES.origin(name)


def imported(function: Function) -> Any:  # noqa: ANN401 — whichever function it is
    """Return the function that `module:function` names; a function itself as it is."""
    if not isinstance(function, str):
        return function
    module, _, name = function.partition(":")
    return getattr(sys.modules.get(module) or import_module(module), name)  # a plan asks ten thousand times


@cache
def _detector_stage(detector: type[Detector]) -> StageSpec:
    return _stage_of(detector, DETECT + kind_of(detector), ("trust",), OfDetector())


def _stage_of(
    config: type[StageConfig], name: str, provides: tuple[str, ...], settings: SettingsOf, sees_poison: bool = False
) -> StageSpec:
    return StageSpec(
        name=name,
        version=config.version,
        needs=config.needs,
        provides=provides,
        settings=settings,
        run=config.run,
        seeded=config.seeded,
        sees_poison=sees_poison,
        diagnose=config.diagnose,
        gates=("ubt.engine.gates:detector_auroc",) if issubclass(config, Detector) else (),
        work=config.work,
    )


class OfDefense:
    """The settings of a defense's stage: those fields of the defense that the stage's own model has."""

    def __init__(self, model: type[Config]) -> None:
        self._fields = tuple(model.model_fields)
        self._newer = {name: model.model_fields[name].default for name in model.newer}

    def __call__(self, trial: TrialConfig) -> Settings:
        """Return them as plain values, without newer fields that have their defaults."""
        values = trial.defense.model_dump(mode="json", include=set(self._fields))
        return {name: value for name, value in values.items() if self._newer.get(name, ...) != value}

    def identity(self, trial: TrialConfig) -> object:
        """Return their values."""
        return tuple([getattr(trial.defense, field) for field in self._fields])


class OfDetector:
    """The settings of the defense's detector, and how many pairs it looks at."""

    def __call__(self, trial: TrialConfig) -> Settings:
        """Return them as plain values."""
        defense: Any = trial.defense
        return {"screened_ratio": defense.screened_ratio, **defense.detector.as_json()}

    def identity(self, trial: TrialConfig) -> object:
        """Return both."""
        defense: Any = trial.defense
        return defense.screened_ratio, defense.detector


class OfMetric:
    """The settings of one further metric."""

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def __call__(self, trial: TrialConfig) -> Settings:
        """Return them as plain values."""
        return self.identity(trial).as_json()

    def identity(self, trial: TrialConfig) -> Metric:
        """Return the metric."""
        return next(metric for metric in trial.metrics if metric.kind == self._kind)


class OfVictim:
    """Settings that follow from the victim alone."""

    def __init__(self, function: Callable[[TrialConfig], Settings]) -> None:
        self._function = function

    def __call__(self, trial: TrialConfig) -> Settings:
        """Return them as plain values; `UserError` if a checkpoint cannot be read."""
        return self._function(trial)

    def identity(self, trial: TrialConfig) -> object:
        """Return the number of the victim's object: comparing victims field by field takes longer than planning."""
        return id(trial.victim)


def of_pretrain(trial: TrialConfig) -> Settings:
    """Return the settings that the clean model is trained by, and its own."""
    return {"model": of_model(trial), "pretrain": trial.victim.pretrain.as_json()}


def of_model(trial: TrialConfig) -> Settings:
    """Return the clean model's settings; `UserError` if its checkpoint cannot be read, or its activation be known."""
    model = trial.victim.model
    own = model.model_dump(mode="json", exclude={"activation"})  # how it is computed counts, not who has said so
    if model.folder:  # what is in it counts, not where it is
        files = described_by(model.folder)
        described = {"files": [path.name for path in files], "content": digest_files(files, "model")}
        own = {**own, "name": LOCAL_DIR, "described": described}
    return {**own, "checkpoint": _content(model.weights_file), **what_differs(model)}


def of_attack(trial: TrialConfig) -> Settings:
    """Return the attack's settings, whether and how the pairs came poisoned, and where a plug-in's attack comes from.

    Of the attack's files and of the list of given poison, their content; `UserError` if one cannot be read.
    """
    attack, poison = trial.victim.attack, trial.victim.poisoning
    settings: Settings = {"attack": None, "pairs_as_given": poison.kind == "given"}
    if attack is not None:
        settings["attack"] = attack.as_json() | {name: _content(path) for name, path in attack.files().items()}
        if origin := ATTACKS.origin(kind_of(type(attack))):
            settings["plugin"] = dict(origin.as_json())
    if isinstance(poison, GivenPoison) and poison.known:
        settings["poison"] = {**poison.as_json(), "manifest": _content(poison.manifest)}
    return settings


def of_implant(trial: TrialConfig) -> Settings:
    """Return how the backdoor is trained in; `UserError` if its checkpoint cannot be read."""
    implant = trial.victim.implant
    work = implant.model_dump(mode="json", exclude={"min_asr"})  # the gate looks at the result, it does not change it
    return {**work, "checkpoint": _content(implant.checkpoint)}


def of_nothing(trial: TrialConfig) -> Settings:
    """Return no settings: the stage depends on its inputs alone."""
    return {}


def _content(file: Path | None) -> str | None:
    """Return the digest of a file, read once however many trials use it; `UserError` if it cannot be read."""
    return digest_files([file], file.name) if file else None
