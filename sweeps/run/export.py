"""A model of a run as files: which artifact of which trial it is, and how to have it again if the store has not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from analysis import Run, load_run
from sweeps.study.config import Resources
from ubt.artifacts.exporting.files import Destination, write_model
from ubt.artifacts.exporting.model_note import ModelNote, Origin
from ubt.artifacts.store import ArtifactStore, default_store, local_cache
from ubt.common.errors import DamagedArtifact, Problem, StageFault, UserError
from ubt.common.formatting import duration
from ubt.common.model_choice import Format, Which
from ubt.common.paths import STUDY_FILE
from ubt.common.registry import load_plugins
from ubt.common.secrets import without_credentials
from ubt.config import read_json, validate
from ubt.config.dotted_paths import JsonObject
from ubt.data import content_key
from ubt.engine.graph import Pipeline, build_pipeline, stages_of
from ubt.models.activation import model_described_by
from ubt.models.settings import ModelSettings
from ubt.trials.config import TrialConfig
from ubt.trials.gates import Gates
from ubt.trials.migration import migrated_study
from ubt.trials.record import StageRecord, TrialRecord

if TYPE_CHECKING:
    from ubt.artifacts.codec import Artifact

Show = Callable[[StageRecord], None]
_ROLES = {Which.DEFENDED: "model", Which.POISONED: "poisoned", Which.CLEAN: "clean"}
"""Which model → the role that its stage fills."""


def export(
    run: Path | str,
    out: Path | str,
    trial: str | None = None,
    *,
    which: Which | str = Which.DEFENDED,
    format: Format | str | None = None,
    force: bool = False,
    recompute: bool = False,
    show: Show = lambda stage: None,
) -> ModelNote:
    """Write a model of a run as files that open_clip loads, and return what is said of it beside the weights.

    Args:
        run: the run folder.
        out: a file that ends with .safetensors or .pt, or a folder.
        trial: name of the trial, or NAME@EPOCH for the model after an epoch of the stage that made it; by default the
            chosen configuration's, with its first seed.
        which: `defended`; `poisoned`, the model that it was made from; or `clean`, the one before the attack.
        format: `safetensors`, `pt`, or `open-clip` for a folder; by default what the ending of `out` says.
        force: replace what an earlier export wrote.
        recompute: compute the model again if the store does not have it.
        show: called with each stage that is computed again, after every epoch.

    Example:
        >>> note = export("runs/demo", "cleaned", format="open-clip")  # doctest: +SKIP
        >>> note.origin.trial, note.origin.test.asr  # doctest: +SKIP
        ('t0004', 0.02)
        >>> note.load  # doctest: +SKIP
        'open_clip.create_model_and_transforms("local-dir:cleaned")'

    Raises:
        UserError: if there is no such trial, nothing is chosen, the model is not in the store, or the files cannot be
            written; nothing is half-written then.
    """
    to = Destination(Path(out), None if format is None else Format(format), force)
    wanted = _wanted(load_run(run), trial, Which(which))
    artifact, computed_again = _artifact(wanted, show if recompute else None)
    return write_model(to, _model(wanted), artifact.weights, _origin(wanted, artifact, computed_again))


@dataclass(frozen=True)
class _Wanted:
    """One model of one trial."""

    record: TrialRecord
    trial: TrialConfig
    which: Which
    stage: StageRecord
    epoch: int | None
    store: ArtifactStore
    resources: Resources
    gates: Gates

    @property
    def name(self) -> str:
        at = f"@{self.epoch}" if self.epoch else ""
        return f"the {self.which} model of {self.record.trial}{at}"


def _wanted(run: Run, given: str | None, which: Which) -> _Wanted:
    study = migrated_study(read_json(run.folder / STUDY_FILE))
    load_plugins(cast("Sequence[str]", study.get("plugins", ())))
    name, epoch = name_and_epoch(given or _chosen(run))
    record = record_named(run, name)
    trial = validate(TrialConfig, record.config, f"record of {name}")
    return _Wanted(
        record=record,
        trial=trial,
        which=which,
        stage=_stage(record, trial, which, epoch),
        epoch=epoch,
        store=ArtifactStore(run.findings.run.store or default_store()),
        resources=validate(Resources, cast(JsonObject, study.get("resources", {})), STUDY_FILE),
        gates=validate(Gates, cast(JsonObject, study.get("gates", {})), STUDY_FILE),
    )


def record_named(run: Run, name: str) -> TrialRecord:
    """Return the record of a trial.

    Raises:
        UserError: if the run has none of that name, with those that it has.
    """
    record = next((record for record in run.records if record.trial == name), None)
    if record is None:
        raise UserError(Problem("TRIAL", f"the run has none of that name, but {_some(run)}", name))
    return record


def name_and_epoch(given: str) -> tuple[str, int | None]:
    """Return the trial's name and the epoch of `TRIAL@EPOCH`, None for the end.

    Raises:
        UserError: if what follows @ is no epoch.
    """
    name, at, epoch = given.partition("@")
    if not at:
        return name, None
    if not (epoch.isascii() and epoch.isdecimal() and len(epoch) < 10 and int(epoch)):
        raise UserError(
            Problem("TRIAL", "what follows @ is no epoch", given, f"write {name}@1, say: they count from 1")
        )
    return name, int(epoch)


def _chosen(run: Run) -> str:
    """Return the chosen configuration's first trial, with @ and the epoch if it is an earlier one."""
    chosen = run.findings.chosen
    if chosen is not None:
        return chosen.name
    if run.findings.run.compared:
        message, others = "compares defenses, and chooses none of its trials over the others", []
    else:
        asked = f"the rule `{run.findings.run.rule}` asks for, clean accuracy within objectives.ca_floor among it"
        message = f"chose nothing: no trial has what {asked}"
        others = [f"the rule `{rule}` takes {one.name}" for rule, one in run.findings.choices.items() if one]
    advice = "; ".join([f"name a trial of {_some(run)}", *others])
    raise UserError(Problem(str(run.folder), message, advice=advice))


def _some(run: Run) -> str:
    names = [record.trial for record in run.records]
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def _stage(record: TrialRecord, trial: TrialConfig, which: Which, epoch: int | None) -> StageRecord:
    """Return what the record says of the stage that makes a model: of several that fill its role, the last."""
    spec = next(spec for spec in reversed(stages_of(trial)) if _ROLES[which] in spec.provides)
    stage = next((stage for stage in record.stages if stage.stage == spec.name), None)
    if stage is None or not (stage.complete or epoch):
        reason = f" ({record.reason})" if record.reason else ""
        message = f"did not get as far as its {which} model, of stage `{spec.name}`: it is {record.state}{reason}"
        raise UserError(Problem(record.trial, message, advice="give a trial that is DONE, or another model (--which)"))
    if epoch and not spec.epochs:
        message = f"of stage `{spec.name}`, which makes the {which} model, only the end is kept"
        raise UserError(Problem("TRIAL", message, f"{record.trial}@{epoch}", "leave @ and the epoch out"))
    return stage


def _artifact(wanted: _Wanted, show: Show | None) -> tuple[Artifact, bool]:
    """Return the model's artifact, and whether it had to be computed again, which is done where there is a `show`."""
    from ubt.artifacts.codec import load_artifact  # noqa: PLC0415 — torch, 5 s, after the first mistakes have been met

    pipeline = _pipeline(wanted) if wanted.epoch else None
    key = pipeline[-1].key if pipeline else wanted.stage.key
    try:
        found = load_artifact(wanted.store, wanted.stage.stage, key)
        why = f"is not in the store {wanted.store.root}: it was pruned, or is in another one"
    except DamagedArtifact as damage:
        found, why = None, f"cannot be read: {damage}"
    if found is not None:
        return found, False
    if show is not None:
        return _computed(wanted, pipeline or _pipeline(wanted), show), True
    if pipeline and wanted.epoch != wanted.stage.epochs[-1].epoch:
        why = _kept_epochs(wanted, pipeline)
    advice = f"--recompute computes it again; its last stage took {duration(wanted.stage.seconds)}"
    raise UserError(Problem(wanted.name, why, advice=advice))


def _model(wanted: _Wanted) -> ModelSettings:
    """Return the model as it was computed with: a checkpoint, which may say its activation, may have gone since."""
    model = wanted.trial.victim.model
    if model.checkpoint is None:
        return model
    loaded = _stage(wanted.record, wanted.trial, Which.CLEAN, None)
    manifest = wanted.store.manifest(loaded.stage, loaded.key)
    return (
        model_described_by(manifest.settings, model.folder, checkpoint=None, random_weights=True) if manifest else model
    )


def _pipeline(wanted: _Wanted) -> Pipeline:
    """Return the stages up to the one that makes the model.

    Raises:
        UserError: if they would make another model today, or fewer epochs than are asked for.
    """
    stages = build_pipeline(wanted.trial, wanted.record.seed, content_key(wanted.trial.victim.data))
    names = [node.spec.name for node in stages]
    *before, last = stages[: names.index(wanted.stage.stage) + 1]
    if last.key != wanted.stage.key:
        message = "would be another one if it was computed now: the data, a checkpoint or the code has changed since"
        raise UserError(Problem(wanted.name, message, advice="use what the run was made with"))
    if wanted.epoch and wanted.epoch > last.epochs:
        message = f"stage `{last.spec.name}` of this trial has fewer epochs: {last.epochs}"
        raise UserError(Problem("TRIAL", message, f"{wanted.record.trial}@{wanted.epoch}"))
    return (*before, last.at(wanted.epoch) if wanted.epoch else last)


def _kept_epochs(wanted: _Wanted, pipeline: Pipeline) -> str:
    last, there = pipeline[-1], wanted.store.keys(wanted.stage.stage)
    kept = [epoch for epoch in range(1, wanted.stage.epochs[-1].epoch + 1) if last.at(epoch).key in there]
    return (
        "is not in the store: an epoch's model is kept where other trials of the study end at it; of this trial there "
        + (f"are those of {', '.join(map(str, kept))}" if kept else "is none")
    )


def _computed(wanted: _Wanted, pipeline: Pipeline, show: Show) -> Artifact:
    """Return the artifact of the last stage, computed in this process from what the store has of those before it."""
    from ubt.engine.pipeline import PipelineRun  # noqa: PLC0415
    from ubt.engine.workspace import Workspace  # noqa: PLC0415
    from ubt.models.clip import pick_device, use_threads  # noqa: PLC0415

    use_threads(wanted.resources.cpus_per_trial)
    victim, device = wanted.trial.victim, pick_device(wanted.resources.gpus_per_trial)
    workspace = Workspace(victim.data, victim.model, device, wanted.store, local_cache(wanted.store.root))
    try:
        for stage in PipelineRun(pipeline, wanted.trial, workspace, {}, wanted.gates).steps():
            show(stage)
    except StageFault as fault:
        raise UserError(Problem(wanted.name, str(fault))) from fault
    artifact = workspace.load(pipeline[-1].spec.name, pipeline[-1].key)
    assert artifact is not None  # noqa: S101 — it was published just now
    return artifact


def _origin(wanted: _Wanted, artifact: Artifact, computed_again: bool) -> Origin:
    record = TrialRecord.model_validate_json(without_credentials(wanted.record.model_dump_json()))
    rates = {Which.POISONED: (record.poisoned_val, record.poisoned_test), Which.CLEAN: (record.clean_val, None)}
    val, test = rates.get(wanted.which, (record.val, record.test))
    if wanted.epoch and wanted.epoch != wanted.stage.epochs[-1].epoch:
        val, test = next(epoch.val for epoch in artifact.manifest.epochs if epoch.epoch == wanted.epoch), None
    return Origin(
        which=wanted.which,
        study=record.study,
        trial=record.trial,
        seed=record.seed,
        epoch=wanted.epoch,
        stage=artifact.manifest.stage,
        key=artifact.manifest.key,
        computed_again=computed_again,
        val=val,
        test=test,
        record=record,
    )
