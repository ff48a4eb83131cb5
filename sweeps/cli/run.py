"""`ubt run`: one pipeline in this process, without Ray, saying what each stage does."""

from __future__ import annotations

import sys
from pathlib import Path

from sweeps.planning.trials import TrialPlanner
from sweeps.run.code_version import commit_of_code
from sweeps.run.folder import RunFolder, new_run
from sweeps.run.preflight import prepare
from sweeps.search.proposals import Proposal
from sweeps.study.config import StudyConfig
from ubt.artifacts.store import default_store
from ubt.trials.record import StageRecord, TrialRecord, write_record


def run_once(study: StudyConfig, out: Path) -> TrialRecord:
    """Run the study's base configuration with its first seed and return the trial's last record.

    Raises:
        UserError: if the store, the data or the weights cannot be used.
    """
    store = study.store or default_store()
    folder = new_run(out, study.name)
    folder.check_writable()
    prepare(study, store)
    with folder.taken() as run:
        return _run_once(study, store, run)


def _run_once(study: StudyConfig, store: str, run: RunFolder) -> TrialRecord:
    run.write_study(study)
    assignment = TrialPlanner(study, store, commit_of_code())(Proposal(0), 0).assignment
    from ubt.engine.runner import TrialRunner  # noqa: PLC0415 — torch, 5 s, after the mistakes have been told

    record = None
    for record in TrialRunner().run(assignment):
        write_record(run.records, record)
        if record.stages:
            print(_stage_line(record.stages[-1]), file=sys.stderr, flush=True)
    assert record is not None  # noqa: S101 — a trial yields at least its end
    return record


def _stage_line(stage: StageRecord) -> str:
    words = [f"{stage.stage:<10}"]
    if stage.epochs and not stage.complete:
        epoch = stage.epochs[-1]
        words.append(f"epoch {epoch.epoch}")
        words += [f"loss {epoch.loss:.3f}"] if epoch.loss is not None else []
        words += [f"ASR {epoch.val.asr:.3f} CA {epoch.val.ca:.3f}"] if epoch.val else []
    elif stage.complete:
        words.append("reused" if stage.reused else "done")
        words += [f"{name} {value:.3g}" for name, value in stage.diagnostics.items()]
    return "  ".join([*words, f"{stage.spent_seconds:.1f} s"])
