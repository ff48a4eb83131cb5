"""`ubt poison`: the poisoned training set of a study's base configuration as files, for other tools."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sweeps.poisoned_files import MANIFEST, PAIRS, write_files
from sweeps.preparing import prepare
from sweeps.search.designs import Grid
from sweeps.study import StudyConfig
from ubt.errors import Problem, StageFault, UserError
from ubt.store import ArtifactStore, UnusableStore, default_store, local_cache

if TYPE_CHECKING:
    from ubt.graph import Pipeline
    from ubt.poisoning import Manifest
    from ubt.workspace import Workspace


def write_poisoned(study: StudyConfig, out: Path) -> str:
    """Write the pairs that the base configuration trains on with its first seed; return in words what was written.

    Raises:
        UserError: if the folder is in use or cannot be written, the data or the weights cannot be read, the
            attack cannot be made, or the victim comes poisoned.
    """
    _check_victim(study)
    _check_empty(out)
    store = study.store or default_store()
    prepare(study.with_parts(search=Grid()), store)
    try:
        workspace, manifest = _poison(study, store)
        found = write_files(study.name, study.seeds[0], workspace.data.train, manifest, out)
    except StageFault as fault:
        raise UserError(Problem(f"study {study.name}", str(fault))) from fault
    except UnusableStore:
        raise  # an OSError as well, but none of --out
    except OSError as error:
        raise UserError(Problem("--out", f"cannot be written: {error}", str(out))) from error
    return f"{found.pairs} pairs in {out / PAIRS}; {len(found.poisoned)} are poisoned, listed in {out / MANIFEST}"


def _check_victim(study: StudyConfig) -> None:
    checkpoint = study.victim.implant.checkpoint
    if checkpoint:
        message, advice = "the victim comes poisoned: its pairs are taken as they are", "leave the checkpoint out"
        raise UserError(Problem("victim.implant.checkpoint", message, str(checkpoint), advice))


def _check_empty(out: Path) -> None:
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        message = "is not empty" if out.is_dir() else "is no folder"
        raise UserError(Problem("--out", message, str(out), "give a new or an empty folder: nothing is overwritten"))


def _poison(study: StudyConfig, store: str) -> tuple[Workspace, Manifest]:
    """Return the data, and which pairs are poisoned with what: the same as when the study is run.

    Only an attack that learns its trigger needs the clean model, which is then made, or found in the store.
    """
    from ubt.graph import build_pipeline  # noqa: PLC0415 — torch, 5 s, after the mistakes have been told
    from ubt.models.device import pick_device, use_threads  # noqa: PLC0415
    from ubt.poisoning import Manifest  # noqa: PLC0415
    from ubt.stages.context import StageContext  # noqa: PLC0415
    from ubt.stages.poison import run  # noqa: PLC0415
    from ubt.workspace import Workspace  # noqa: PLC0415

    use_threads(study.resources.cpus_per_trial)
    trial = study.trial({})
    device = pick_device(study.resources.gpus_per_trial if trial.victim.attack.learns else 0)
    workspace = Workspace(trial.victim, ArtifactStore(store), local_cache(store), device)
    clean, poison, *_ = build_pipeline(trial, study.seeds[0])
    if trial.victim.attack.learns:
        return workspace, _from_pipeline((clean, poison), workspace)
    output = run(StageContext(poison, workspace, {}, None))
    return workspace, Manifest.read(output.tensors, output.facts)


def _from_pipeline(pipeline: Pipeline, workspace: Workspace) -> Manifest:
    from ubt.pipeline import PipelineRun  # noqa: PLC0415
    from ubt.poisoning import Manifest  # noqa: PLC0415

    for record in PipelineRun(pipeline, workspace.victim, workspace, {}).steps():
        epoch = f"epoch {record.epochs[-1].epoch}" if record.epochs else ""
        state = ("reused" if record.reused else "done") if record.complete else epoch
        print(f"{record.stage:<10}  {state}  {record.spent_seconds:.1f} s", file=sys.stderr, flush=True)
    poison = workspace.load("poison", pipeline[-1].key)
    assert poison is not None  # noqa: S101 — it was published just now
    return Manifest.of(poison)
