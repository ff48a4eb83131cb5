"""The trial to compute again, and whether study, seed, code and data are still what it was computed with."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import JsonValue

from analysis import Run
from sweeps.replaying.differences import Manifests
from sweeps.run.commit import commit_of_code
from sweeps.run.export import name_and_epoch, record_named
from sweeps.study.config import StudyConfig
from ubt.artifacts.store import ArtifactStore, default_store
from ubt.common.errors import Problem, UserError
from ubt.common.paths import STUDY_FILE
from ubt.common.registry import load_plugins
from ubt.config import Config, difference, get_path, read_json, validate
from ubt.data import content_key
from ubt.engine.graph import Node, Pipeline, build_pipeline, stages_of
from ubt.trials.config import TrialConfig
from ubt.trials.failures import Failure
from ubt.trials.migration import migrated_study
from ubt.trials.record import State, TrialRecord

DEFENDED = "model"
"""The role that the defended model fills."""


class Check(Config):
    """One thing that results depend on, then and now."""

    what: str
    then: str
    """"" if the record does not say it."""
    now: str

    @property
    def same(self) -> bool | None:
        """Return whether it is the same; None if that is not known, as of code with changes that no commit has."""
        return None if not self.then or "+" in {self.then[-1:], self.now[-1:]} else self.then == self.now


@dataclass(frozen=True)
class Wanted:
    """One trial, up to an epoch of its defense or to its end."""

    run: Run
    study: StudyConfig
    record: TrialRecord
    trial: TrialConfig
    """What is computed: as it was, or with so many epochs of the stage that makes the defended model."""
    pipeline: Pipeline
    upto: tuple[str, int] | None
    """That stage and the epoch at which it ends; None for the whole trial."""

    @property
    def name(self) -> str:
        """Return what is computed again, as it was asked for."""
        return self.record.trial + (f"@{self.upto[1]}" if self.upto else "")

    def kept(self) -> Manifests:
        """Return what the run's store still has of it, by stage; nothing if the store cannot be read."""
        store = ArtifactStore(self.run.findings.run.store or default_store())
        try:
            found = {node.spec.name: store.manifest(node.spec.name, node.key) for node in self.pipeline}
        except UserError:
            return {}
        return {stage: manifest for stage, manifest in found.items() if manifest}


def wanted(run: Run, given: str) -> Wanted:
    """Return the trial to compute again.

    Raises:
        UserError: if the run has no such trial or epoch, it did not get so far, or it would be another trial now: the
            study, the data, a checkpoint or the code of a stage has changed since; with what differs.
    """
    study = _study(run)
    name, epoch = name_and_epoch(given)
    record = record_named(run, name)
    if not record.state.ended or record.failed_by is Failure.FAULT or not record.stages:
        reason = f": {record.reason}" if record.reason else ""
        message = f"is {record.state}, and there is nothing to hold another computation against{reason}"
        raise UserError(Problem(name, message, advice="give a trial that is DONE"))
    trial = validate(TrialConfig, record.config, f"record of {name}")
    _check_study(study, record)
    whole = build_pipeline(trial, record.seed, content_key(trial.victim.data))
    asked = Wanted(run, study, record, trial, whole, None)
    _check_keys(asked)
    if epoch is None and record.state is State.PRUNED:
        epoch = len(record.epochs) and record.epochs[-1][1].epoch  # as far as it went
    return _at(asked, epoch) if epoch else asked


def _study(run: Run) -> StudyConfig:
    tree = migrated_study(read_json(run.folder / STUDY_FILE))
    plugins = tree.get("plugins", ())
    load_plugins([str(plugin) for plugin in plugins] if isinstance(plugins, list | tuple) else ())
    return validate(StudyConfig, tree, STUDY_FILE)


def _check_study(study: StudyConfig, record: TrialRecord) -> None:
    """Refuse a record that does not follow from the study in its folder: one of both was changed."""
    problems = []
    if record.seed not in study.seeds:
        seeds = ", ".join(map(str, study.seeds))
        problems.append(Problem(f"{STUDY_FILE}: seeds", f"are {seeds}, and {record.trial} has another", record.seed))
    configured = _as_recorded(study.trial(record.changes))
    for path in dict.fromkeys((*difference(configured, record.config), *difference(record.config, configured))):
        if path.partition(".")[0] in {"victim", "defense"}:
            message = f"is {_text(configured, path)} by the study, and was {_text(record.config, path)}"
            problems.append(Problem(f"{record.trial}: {path}", message))
    if problems:
        advice = "study.json or the record was changed since: use the run as it was"
        raise UserError([Problem(one.where, one.message, one.given, advice) for one in problems])


def _as_recorded(trial: TrialConfig) -> dict[str, JsonValue]:
    found: dict[str, JsonValue] = json.loads(json.dumps(trial.as_json()))
    return found


def _text(tree: dict[str, JsonValue], path: str) -> str:
    try:
        return json.dumps(get_path(tree, path))
    except KeyError:
        return "not set"


def _check_keys(asked: Wanted) -> None:
    """Refuse a trial whose stages would do other work today, and say where that begins."""
    now = {node.spec.name: node for node in asked.pipeline}
    for stage in asked.record.stages:
        node = now.get(stage.stage)
        if node is None or node.key != stage.key:
            why = "; ".join(_reasons(asked, stage.key, node)) if node else "this version has no such stage there"
            message = f"would be other work today: {why}"
            advice = "use the data, weights, plug-ins and version of ubt that the run was made with"
            raise UserError(Problem(f"{asked.record.trial}: stage `{stage.stage}`", message, advice=advice))


def _reasons(asked: Wanted, key: str, node: Node) -> Iterator[str]:
    """Yield what of a stage's work differs, as far as its artifact says what it was."""
    store = ArtifactStore(asked.run.findings.run.store or default_store())
    kept = store.manifest(node.spec.name, key)
    if kept is None:
        yield "its data, settings or code differ, and the store no longer says which"
        return
    if kept.version != node.spec.version:
        yield f"its code was of version {kept.version}, and is of {node.spec.version}"
    settings: dict[str, Any] = json.loads(json.dumps(node.settings))
    for path in dict.fromkeys((*difference(settings, kept.settings), *difference(kept.settings, settings))):
        yield f"{path} was {_text(kept.settings, path)}, and is {_text(settings, path)}"
    if kept.seed != node.seed:
        yield f"its seed was {kept.seed}, and is {node.seed}"
    if (kept.version, kept.settings, kept.seed) == (node.spec.version, settings, node.seed):
        yield "the data that it reads, or a plug-in that it is of, has other content"


def _at(asked: Wanted, epoch: int) -> Wanted:
    """Return the trial up to an epoch of the stage that makes the defended model: with so many epochs of it."""
    record = asked.record
    spec = next(spec for spec in reversed(stages_of(asked.trial)) if DEFENDED in spec.provides)
    stage = next((stage for stage in record.stages if stage.stage == spec.name), None)
    if spec.epochs is None or stage is None:
        message = f"the defended model is that of stage `{spec.name}`, of which only the end is kept"
        raise UserError(Problem("TRIAL", message, f"{record.trial}@{epoch}", "leave @ and the epoch out"))
    if epoch > len(stage.epochs):
        message = f"stage `{spec.name}` of this trial has fewer epochs: {len(stage.epochs)}"
        raise UserError(Problem("TRIAL", message, f"{record.trial}@{epoch}"))
    defense = asked.trial.defense.model_copy(update={spec.epochs: epoch})
    trial = validate(
        TrialConfig, asked.trial.model_copy(update={"defense": defense}).as_json(), f"{record.trial}@{epoch}"
    )
    pipeline = build_pipeline(trial, record.seed, content_key(trial.victim.data))
    return Wanted(asked.run, asked.study, record, trial, pipeline, (spec.name, epoch))


def checks(asked: Wanted, kept: Manifests, versions: dict[str, str], device: str) -> tuple[Check, ...]:
    """Return what results depend on, then and now. `device` is the kind of device that computes now.

    Stages that the trial found in the store may have been computed elsewhere: their artifacts say where.
    """
    record = asked.record
    then = [record.device_kind, *(manifest.setup.hardware for manifest in kept.values() if manifest.setup)]
    kinds = dict.fromkeys(kind for kind in then if kind and not record.device_kind.startswith(f"{kind},"))
    libraries = [Check(what=name, then=then, now=versions.get(name, "–")) for name, then in record.versions.items()]
    return (
        Check(what="code", then=record.commit, now=commit_of_code()),
        *libraries,
        Check(what="device", then="; ".join(kinds), now=device),
    )
