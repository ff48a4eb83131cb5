"""`ubt plan --calibrate`: measure by a few batches how fast a study's models are where it would run."""

from __future__ import annotations

from collections import defaultdict
from functools import partial

from sweeps.backends.connection import INLINE, start_ray
from sweeps.backends.lifetime import stop_ray
from sweeps.planning.layout import lay_out
from sweeps.study.config import StudyConfig
from ubt.artifacts.manifest import Setup
from ubt.artifacts.store import ArtifactStore, default_store
from ubt.common.errors import Problem, UserError
from ubt.common.progress import waiting_for
from ubt.engine.work import Calibrated
from ubt.models.settings import ModelSettings


def calibrate_study(study: StudyConfig, address: str) -> list[Setup]:
    """Measure how fast the models of a study are, and keep it in its store; return what it was measured on.

    In the places where its trials would run, in all of them at once, as they would: on two cores that share a memory
    two trials are slower than one. `inline` measures in this process alone.

    Raises:
        UserError: if the store cannot be written, a cluster does not answer, or nothing could be measured.
    """
    store = study.store or default_store()
    ArtifactStore(store).check_writable()
    laid = lay_out(study)
    batches: dict[ModelSettings, int] = {}
    for trial, _ in laid.everything:
        batches.setdefault(trial.victim.model, trial.victim.implant.batch_size)
    measured: defaultdict[Setup, list[Calibrated]] = defaultdict(list)
    for one in _measured(study, store, batches, address):
        measured[one.setup].append(one)
    for found in measured.values():
        ArtifactStore(store).publish(Calibrated.mean(found).as_artifact(), {})
    return list(measured)


def _measured(study: StudyConfig, store: str, batches: dict[ModelSettings, int], address: str) -> list[Calibrated]:
    resources = study.resources

    def calibrations() -> list[Calibrated]:
        from ubt.stages.calibration import calibrate  # noqa: PLC0415 — torch

        run = partial(calibrate, threads=resources.cpus_per_trial, gpus=resources.gpus_per_trial, store=store)
        return [run(model, batch_size=size) for model, size in batches.items()]

    if address == INLINE:
        return calibrations()
    try:
        start_ray(address, resources)
        from sweeps.backends.node_tasks import as_trials  # noqa: PLC0415 — Ray

        with waiting_for("a few batches to be measured"):
            results, faults = as_trials(calibrations, resources)
    finally:
        stop_ray()
    if not any(results):
        raise UserError([Problem(f"--calibrate on {fault}", "nothing could be measured") for fault in faults])
    return [one for found in results for one in found]
