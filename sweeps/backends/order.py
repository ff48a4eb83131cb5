"""The order in which Tune's trials get workers, and which of them end before they are done."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler

from sweeps.backends.node_tasks import ask_again, let_go, take_back
from sweeps.backends.nodes import Nodes
from sweeps.backends.searcher import SessionSearcher, place_of
from sweeps.backends.trainable import NODE, UNFIT
from sweeps.backends.worker_ends import end_of_worker


class Order(FIFOScheduler):
    """Assignments first; idle trials end when their workers are needed, or of no use any more.

    Nodes in quarantine, and those that leave the cluster, get none.
    """

    def __init__(self, searcher: SessionSearcher, nodes: Nodes | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._searcher = searcher
        self._nodes = nodes
        self._changes = 0

    def choose_trial_to_run(self, tune_controller: TuneController) -> Trial | None:
        """Tune begins a step, and has new trials from the searcher. Return one for which there may be a free worker.

        To the others Tune gives what is free then in its own order, those first that have asked for none yet: one that
        waits for a worker which is being started goes on waiting for it.
        """
        if self._nodes:
            self._nodes.poll()
            self._searcher.pool.capacity = self._nodes.capacity
            if self._nodes.changes != self._changes:
                self._changes = self._nodes.changes
                ask_again(tune_controller)
        now = live(tune_controller)
        self._searcher.check_startable(running=any(each.status == Trial.RUNNING for each in now))
        pending = {each.trial_id: each for each in now if each.status == Trial.PENDING}
        self._searcher.for_free &= pending.keys()
        if not self._searcher.for_free:
            let_go(tune_controller)
        for trial_id in self._searcher.unused():
            if trial_id in pending:
                take_back(tune_controller, pending.pop(trial_id))
        return next((each for name, each in pending.items() if self._searcher.has_assignment(name)), None)

    def on_trial_error(self, tune_controller: object, trial: Trial) -> None:
        """Take down why a trial's worker is gone. Tune tells its scheduler first, then the searcher."""
        self._searcher.worker_ended(trial.trial_id, end_of_worker(error_text(trial)))

    def on_trial_result(self, tune_controller: TuneController, trial: Trial, result: dict[str, Any]) -> str:
        """Tell Tune whether a trial goes on."""
        pending = [each.trial_id for each in live(tune_controller) if each.status == Trial.PENDING]
        ends = self._searcher.releases_worker(trial.trial_id, place_of(result), self._kept_off(result), pending)
        return self.STOP if ends or self._searcher.hands_back(trial.trial_id, result) else self.CONTINUE

    def on_trial_complete(self, tune_controller: object, trial: Trial, result: dict[str, Any]) -> None:
        """Put a node into quarantine whose worker has found that it is not fit."""
        if self._nodes and (unfit := result.get(UNFIT)):
            self._nodes.quarantine(result[NODE], *unfit)

    def _kept_off(self, result: dict[str, Any]) -> bool:
        return self._nodes is not None and result.get(NODE) in self._nodes.closed


def live(controller: TuneController) -> Iterable[Trial]:
    """Return those of Tune's trials that have not ended."""
    trials: set[Trial] = controller.get_live_trials()  # type: ignore[no-untyped-call]
    return trials


def error_text(trial: Trial) -> str:
    """Return the text of what ended a trial last, from the file in which Tune keeps it on this machine."""
    try:
        return Path(trial.error_file).read_text(encoding="utf-8") if trial.error_file else ""
    except OSError as error:
        return f"Ray's account of it cannot be read: {error}"
