"""A run as a journal of Optuna's, made from its records: optuna-dashboard shows its trials by name, state and rates."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from pydantic import JsonValue

from analysis.effects.evaluators import distribution_of, param_of
from analysis.findings import Findings
from analysis.tables import setting
from ubt.common.errors import Problem, UserError
from ubt.trials.record import State, TrialRecord

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

METRICS = ("ASR", "CA")
"""Of the defended model on validation, as the search sees it."""


def as_journal(findings: Findings) -> str:
    """Return a run as the text of a journal that `optuna-dashboard FILE` opens, and Optuna itself.

    It holds every trial of every design, also of a search that asks Optuna nothing; the search's own journal is left
    alone. A trial's number is its place among them, and its name is beside it.

    Raises:
        UserError: if no attack is known: there is no attack success rate then.
    """
    if findings.measured and not findings.attacked:
        message = "no attack is known, so its trials have no attack success rate"
        raise UserError(Problem(str(findings.run.folder), message, advice="`ubt report` shows their clean accuracy"))
    import optuna  # noqa: PLC0415 — slow to import
    from optuna.storages import JournalStorage  # noqa: PLC0415
    from optuna.storages.journal import BaseJournalBackend  # noqa: PLC0415

    class Collected(BaseJournalBackend):
        """Operations in memory: a file would be written to the disk for each."""

        def __init__(self) -> None:
            self.logs: list[dict[str, Any]] = []

        def read_logs(self, log_number_from: int) -> list[dict[str, Any]]:
            return self.logs[log_number_from:]

        def append_logs(self, logs: list[dict[str, Any]]) -> None:
            self.logs += logs

    backend, before = Collected(), optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study = optuna.create_study(
                storage=JournalStorage(backend), study_name=findings.run.name, directions=["minimize", "maximize"]
            )
            study.set_metric_names(list(METRICS))
            study.add_trials(_trials(findings))
    finally:
        optuna.logging.set_verbosity(before)
    return "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in backend.logs)


def _trials(findings: Findings) -> Iterator[FrozenTrial]:
    from optuna.trial import create_trial  # noqa: PLC0415 — slow to import

    run = findings.run
    columns: dict[str, dict[str, JsonValue]] = {
        path: {one.trial: value for one in run.records if (value := setting(one, path)) is not None}
        for path in run.knobs
    }
    spaces = {path: distribution_of(list(values.values())) for path, values in columns.items() if values}
    marks = {"front": {trial.trial for one in findings.front for trial in one.trials}}
    marks["chosen"] = {trial.trial for trial in findings.chosen.trials} if findings.chosen else set()
    for record in run.records:
        params = {path: param_of(columns[path][record.trial], spaces[path]) for path in spaces
                  if record.trial in columns[path]}  # fmt: skip
        made = create_trial(
            state=_state(record),
            values=_rates(record),
            params=params,
            distributions={path: spaces[path] for path in params},
            user_attrs={**_said(record), **{mark: True for mark, names in marks.items() if record.trial in names}},
        )
        if (began := _moment(record.started_at)) is not None:
            made.datetime_start = began
            made.datetime_complete = began + timedelta(seconds=record.seconds) if made.state.is_finished() else None
        yield made


def _state(record: TrialRecord) -> Any:  # noqa: ANN401 — Optuna's, which is imported late
    from optuna.trial import TrialState  # noqa: PLC0415 — slow to import

    states = {State.RUNNING: TrialState.RUNNING, State.PRUNED: TrialState.PRUNED}
    if _rates(record) is not None:
        return TrialState.COMPLETE
    return states.get(record.state, TrialState.FAIL)


def _rates(record: TrialRecord) -> list[float] | None:
    if record.state is not State.DONE or record.val is None or record.val.asr is None:
        return None
    return [record.val.asr, record.val.ca]


def _said(record: TrialRecord) -> dict[str, JsonValue]:
    """Return what the dashboard shows beside the settings, without what is not there."""
    test = record.test
    said: dict[str, JsonValue] = {
        "trial": record.trial,
        "state": record.state.value,
        "reason": record.reason.partition("\n")[0],
        "seed": record.seed,
        "label": str(record.label),
        "test ASR": test.asr if test else None,
        "test CA": test.ca if test else None,
    }
    return {name: value for name, value in said.items() if value not in (None, "")}


def _moment(utc: str) -> datetime | None:
    """Return a time as Optuna keeps it, local and without its zone."""
    try:
        return datetime.fromisoformat(utc).astimezone().replace(tzinfo=None)
    except ValueError:
        return None
