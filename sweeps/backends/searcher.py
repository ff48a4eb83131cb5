"""The bridge between Ray Tune and a session: Tune asks what to run next, and says what came of it."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any, Self

from ray.tune import Callback
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from sweeps.backends.trainable import ASSIGNMENT, RECORD
from sweeps.backends.warm_workers import WarmWorkers
from sweeps.scheduling.session import Session
from ubt.trials.assignment import Assignment
from ubt.trials.record import TrialRecord


class SessionSearcher(Searcher):
    """Hands Tune a session's assignments. Tune calls by keyword, so the parameters keep its names."""

    def __init__(self, session: Session, workers: int = 1) -> None:
        super().__init__(metric=None, mode=None)
        self._session = session
        self._workers = workers
        self._trials: dict[str, str] = {}
        self._warm = WarmWorkers()
        self._next: Assignment | None = None
        self._asked = False

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]
        """Return the next assignment, or an idle trial; None if neither may start yet, FINISHED at the end."""
        self._look_ahead()
        if self._next is None and self._session.finished:
            return Searcher.FINISHED
        if self._next is None or self._warm.starting:
            return self._idle_trial(trial_id)
        assignment, self._next = self._next, None
        self._warm.taken()
        self._trials[trial_id] = assignment.trial
        return {ASSIGNMENT: assignment.as_json()}

    def releases_worker(self, trial_id: str) -> bool:
        """Tell whether one of Tune's trials is an idle one that is to end now. It runs, so its worker is up."""
        if trial_id not in self._warm:
            return False
        self._warm.is_up(trial_id)
        if self._warm.starting:
            return False
        self._look_ahead()
        if self._next is None:
            return self._session.finished
        return self._warm.release()

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Pass on the record of a trial that is under way."""
        if trial_id in self._trials:
            self._session.updated(TrialRecord.model_validate_json(result[RECORD]))

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Pass on a trial's last record, or that its worker died."""
        if trial_id in self._warm:
            self._warm.ended(trial_id, failed=error)
            return
        trial = self._trials.pop(trial_id)
        if error or not result or RECORD not in result:
            self._session.crashed(trial, "the worker process died (killed, out of memory, or its node was lost)")
            return
        record = TrialRecord.model_validate_json(result[RECORD])
        self._session.ended(trial, record)

    def _look_ahead(self) -> None:
        """Have the next assignment ready, if there is one."""
        if self._next is None:
            self._next = self._session.next_assignment()
        if not self._asked:
            self._asked = True
            self._warm.begin(min(self._workers, self._session.waiting + 1))

    def _idle_trial(self, trial_id: str) -> dict[str, Any] | None:
        if not self._warm.wanted(running=len(self._trials)):
            return None
        self._warm.start(trial_id)
        return {ASSIGNMENT: None}

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


class Order(FIFOScheduler):
    """Tune's own order, first come, first served; idle trials end when their workers are needed."""

    def __init__(self, searcher: SessionSearcher) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._searcher = searcher

    def on_trial_result(self, tune_controller: object, trial: Trial, result: dict[str, Any]) -> str:
        """Tell Tune whether a trial goes on."""
        return self.STOP if self._searcher.releases_worker(trial.trial_id) else self.CONTINUE


class Interruption(Callback):
    """Lets Ctrl-C end Tune between two of its steps, a tenth of a second apart, with KeyboardInterrupt.

    Within a call to a cluster it could leave a lock of gRPC's taken, for which the disconnection then waits for
    ever. A second Ctrl-C does not wait.
    """

    def __init__(self) -> None:
        self._pressed = False

    def __enter__(self) -> Self:
        """Take Ctrl-C over, where there is one: only a process's main thread is interrupted."""
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
