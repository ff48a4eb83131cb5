"""`ubt poison`: the poisoned training set of a study's base configuration as files, for other tools."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sweeps.cli.poison_files import MANIFEST, PAIRS, STUDY, write_files, write_study
from sweeps.run.preflight import prepare
from sweeps.search.designs import Grid
from sweeps.study.config import StudyConfig
from ubt.artifacts.store import ArtifactStore, UnusableStore, default_store, local_cache
from ubt.common.errors import Problem, StageFault, UserError
from ubt.trials.poison import GivenPoison

if TYPE_CHECKING:
    from ubt.engine.graph import Pipeline
    from ubt.engine.poisoning import PoisonManifest
    from ubt.engine.workspace import Workspace
    from ubt.trials.config import TrialConfig


def write_poisoned(study: StudyConfig, out: Path, complete: bool = False) -> str:
    """Write the pairs that the base configuration trains on with its first seed; return in words what was written.

    If `complete`, with all that a study of these pairs needs, and that study.

    Raises:
        UserError: if the folder is in use or cannot be written, the data or the weights cannot be read, the
            attack cannot be made, or the pairs come poisoned.
    """
    _check_victim(study)
    _check_empty(out)
    store = study.store or default_store()
    prepare(study.with_parts(search=Grid()), store)
    try:
        workspace, manifest = _poison(study, store)
        out.mkdir(parents=True, exist_ok=True)
        left_out = write_study(study, workspace.data, out) if complete else ""
        found = write_files(study.name, study.seeds[0], workspace.data.train, manifest, out)
    except StageFault as fault:
        raise UserError(Problem(f"study {study.name}", str(fault))) from fault
    except UnusableStore:
        raise  # an OSError as well, but none of --out
    except OSError as error:
        raise UserError(Problem("--out", f"cannot be written: {error}", str(out))) from error
    told = f"{found.pairs} pairs in {out / PAIRS}; {len(found.poisoned)} are poisoned, listed in {out / MANIFEST}"
    if complete:
        told += f"\nThe study of them is {out / STUDY}" + (f", {left_out}" if left_out else "")
    return told


def _check_victim(study: StudyConfig) -> None:
    if study.victim.attack is None:
        raise UserError(Problem("victim.attack", "is null: there is nothing to poison with", advice="name the attack"))
    if isinstance(study.victim.poisoning, GivenPoison):
        message, given = "the victim's pairs come poisoned: there is nothing to add", study.victim.poisoning.kind
        raise UserError(Problem("victim.poison", message, given, "say `victim.poison.kind: made` to poison them here"))


def _check_empty(out: Path) -> None:
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        message = "is not empty" if out.is_dir() else "is no folder"
        raise UserError(Problem("--out", message, str(out), "give a new or an empty folder: nothing is overwritten"))


def _poison(study: StudyConfig, store: str) -> tuple[Workspace, PoisonManifest]:
    """Return the data, and which pairs are poisoned with what: the same as when the study is run.

    Only an attack that learns its trigger needs the clean model, which is then made, or found in the store.
    """
    from ubt.engine.context import PrivilegedContext  # noqa: PLC0415
    from ubt.engine.graph import build_pipeline  # noqa: PLC0415 — torch, 5 s, after the mistakes have been reported
    from ubt.engine.poisoning import PoisonManifest  # noqa: PLC0415
    from ubt.engine.workspace import Workspace  # noqa: PLC0415
    from ubt.models.clip import pick_device, use_threads  # noqa: PLC0415
    from ubt.stages.poison import run  # noqa: PLC0415

    use_threads(study.resources.cpus_per_trial)
    trial = study.trial({})
    learns = trial.victim.attack is not None and trial.victim.attack.learns
    device = pick_device(study.resources.gpus_per_trial if learns else 0)
    workspace = Workspace(trial.victim.data, trial.victim.model, device, ArtifactStore(store), local_cache(store))
    pipeline = build_pipeline(trial, study.seeds[0])
    clean, poison = (next(node for node in pipeline if role in node.spec.provides) for role in ("clean", "manifest"))
    if learns:
        return workspace, _from_pipeline((clean, poison), trial, workspace)
    output = run(PrivilegedContext(poison, workspace, {}))
    return workspace, PoisonManifest.read(output.tensors, output.facts)


def _from_pipeline(pipeline: Pipeline, trial: TrialConfig, workspace: Workspace) -> PoisonManifest:
    from ubt.engine.poisoning import PoisonManifest  # noqa: PLC0415
    from ubt.engine.runner import PipelineRun  # noqa: PLC0415

    for record in PipelineRun(pipeline, trial, workspace, {}).steps():
        epoch = f"epoch {record.epochs[-1].epoch}" if record.epochs else ""
        state = ("reused" if record.reused else "done") if record.complete else epoch
        print(f"{record.stage:<10}  {state}  {record.spent_seconds:.1f} s", file=sys.stderr, flush=True)
    poison = workspace.load("poison", pipeline[-1].key)
    assert poison is not None  # noqa: S101 — it was published just now
    return PoisonManifest.of(poison)
