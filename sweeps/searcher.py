"""The bridge between Ray Tune and a session: Tune asks what to run next and tells what came of it."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any, Self

from ray.tune import Callback
from ray.tune.search import Searcher

from sweeps.session import Session
from sweeps.trainable import ASSIGNMENT, RECORD
from ubt.records import TrialRecord


class SessionSearcher(Searcher):
    """Hands Tune a session's assignments. Tune calls by keyword, so the parameters keep its names."""

    def __init__(self, session: Session) -> None:
        super().__init__(metric=None, mode=None)
        self._session = session
        self._trials: dict[str, str] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]
        """Return the next assignment, None if none may start yet, or FINISHED."""
        assignment = self._session.next_assignment()
        if assignment is None:
            return Searcher.FINISHED if self._session.finished else None
        self._trials[trial_id] = assignment.trial
        return {ASSIGNMENT: assignment.as_json()}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Pass on the record of a trial that is under way."""
        self._session.updated(TrialRecord.model_validate_json(result[RECORD]))

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Pass on a trial's last record, or that its worker died."""
        trial = self._trials.pop(trial_id)
        if error or not result or RECORD not in result:
            self._session.crashed(trial, "the worker process died (killed, out of memory, or its node was lost)")
            return
        record = TrialRecord.model_validate_json(result[RECORD])
        self._session.ended(trial, record)

    def __deepcopy__(self, memo: object) -> SessionSearcher:
        """Stay the one bridge to the session wherever Tune copies its configuration."""
        return self

    def __getstate__(self) -> dict[str, Any]:
        """Leave the session out of the files in which Tune keeps itself: we never restore from them."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing: a sweep is resumed from its records, not from Tune's files."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, as above."""


class Interruption(Callback):
    """Lets Ctrl-C end Tune between two of its steps, a tenth of a second apart, with KeyboardInterrupt.

    Within a call to a cluster it could leave a lock of gRPC's taken, for which the disconnection then waits for
    ever. A second Ctrl-C does not wait.
    """

    def __init__(self) -> None:
        self._pressed = False

    def __enter__(self) -> Self:
        """Take Ctrl-C over, where there is one: only a process's main thread is told."""
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        self._restore()

    def on_step_begin(self, iteration: int, trials: list[Any], **info: object) -> None:
        """Tune begins a step."""
        if self._pressed:
            raise KeyboardInterrupt

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._pressed = True
        self._restore()

    def _restore(self) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, self._before)
