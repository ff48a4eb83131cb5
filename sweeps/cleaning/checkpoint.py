"""Clean a suspicious checkpoint, as a defender would: no attack is known, and nothing is measured with a trigger.

`clean_checkpoint` puts together a study of UBT on the given checkpoint and pairs, runs it like any other, chooses
without the trigger (`ubt.common.choice`), and writes the cleaned model, the pairs by suspicion, and a page to read.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from analysis import load_run
from analysis.cleaned import Cleaned, page_of, suspects_csv
from analysis.findings import Findings
from analysis.formatting import changes_text, short_names
from analysis.points.configurations import Configuration
from sweeps.backends.connection import INLINE
from sweeps.cleaning.study import RUN, Request, study_for
from sweeps.run.export import export
from sweeps.run.folder import RunFolder, new_run
from sweeps.run.launch import run_study
from sweeps.run.resume import check_same_study
from sweeps.study.config import StudyConfig
from ubt.artifacts.exporting.model_note import ModelNote
from ubt.artifacts.store import default_store
from ubt.common import choice
from ubt.common.atomic_files import write_whole
from ubt.common.errors import Problem, UserError
from ubt.common.exits import Cause, Ended, Exit
from ubt.common.paths import STUDY_FILE
from ubt.config.dotted_paths import JsonObject

MODEL, SUSPECTS, PAGE = "model.safetensors", "suspects.csv", "report.html"


@dataclass(frozen=True)
class CleanedModel:
    """What was written."""

    model: Path
    suspects: Path
    page: Path
    note: ModelNote
    cleaned: Cleaned


def clean_checkpoint(request: Request, address: str = INLINE) -> CleanedModel:
    """Clean a checkpoint and write `model.safetensors`, `suspects.csv` and `report.html` into a folder.

    What an earlier call has computed of it is not computed again.

    Raises:
        UserError: with every mistake in what was given; if no setting could be run; or as `run_study`.
        Ended: if it was interrupted, or stopped by a fault: the same call goes on.
    """
    with _as_options():
        study = study_for(request)
        run = _run_folder(request.out, study)
        end = run_study(study, run, address)
    if end.interrupted or not end.complete:
        raise Ended(end.interrupted or Cause(end.stopped, Exit.FAULT))
    findings = load_run(run.path).findings
    chosen, qualified = _chosen(findings)
    from sweeps.cleaning.look import look  # noqa: PLC0415 — torch, 5 s, after all mistakes have been met

    store = study.store or default_store()
    cleaned = look(study, chosen.first, store, request.has_reference, request.labels is not None)
    cleaned = replace(cleaned, qualified=qualified, tried=len(findings.measured), settings=_settings_text(chosen))
    note = export(run.path, request.out / MODEL, chosen.name, force=True)
    suspects = write_whole(request.out / SUSPECTS, suspects_csv(cleaned))
    page = write_whole(request.out / PAGE, page_of(cleaned))
    return CleanedModel(request.out / MODEL, suspects, page, note, cleaned)


def _run_folder(out: Path, study: StudyConfig) -> RunFolder:
    """Return a new run folder, or that of an earlier call, which goes on."""
    if not (out / RUN / STUDY_FILE).exists():
        return new_run(out, RUN)
    run = RunFolder((out / RUN).absolute())
    try:
        check_same_study(run, study)
    except UserError as error:
        message = "was used to clean something else, or in another way"
        raise UserError([Problem("--out", message, str(out), "give a new folder"), *error.problems]) from error
    return run


def _chosen(findings: Findings) -> tuple[Configuration, bool]:
    """Return the configuration that the rule chooses or, if none qualifies, the nearest; and whether it qualifies."""
    rule = findings.run.rule
    chosen = findings.choices.get(rule)
    if chosen is not None:
        return chosen, True
    candidates = {candidate: c for c in findings.configurations if (candidate := c.candidate)}
    nearest = choice.nearest(candidates, rule)
    if nearest is None:
        reasons = dict.fromkeys(record.reason for record in findings.run.records if record.reason)
        message = "; ".join(reasons) or "no pair was selected, so there is nothing to unlearn"
        raise UserError(Problem("ubt clean", message, advice=f"see {findings.run.folder} for every trial"))
    return candidates[nearest], False


def _settings_text(chosen: Configuration) -> tuple[str, ...]:
    defense = cast(JsonObject, chosen.first.config["defense"])
    shown = {f"defense.{name}": value for name, value in defense.items() if name in _SHOWN}
    return changes_text(shown, short_names(shown))


_SHOWN = (
    "detector",
    "suspicious_ratio",
    "overfit_epochs",
    "unlearn_samples",
    "token_threshold",
    "unlearn_epochs",
    "unlearn_learning_rate",
    "retain_weight",
)


@contextmanager
def _as_options() -> Iterator[None]:
    """Say mistakes of the study's fields as those of the options that they come from."""
    try:
        yield
    except UserError as error:
        raise UserError([replace(problem, where=_option(problem.where)) for problem in error.problems]) from error


_OPTIONS = {
    "victim.data.pairs": "--pairs",
    "victim.data.labels": "--labels",
    "victim.data.classes": "--classes",
    "victim.data.templates": "--templates",
    "victim.implant.checkpoint": "--checkpoint",
    "victim.model.checkpoint": "--reference-checkpoint",
    "victim.model.pretrained": "--reference-model",
    "victim.model.name": "--model",
}


def _option(where: str) -> str:
    place = where.removeprefix("ubt clean: ")
    return _OPTIONS.get(place, place)
