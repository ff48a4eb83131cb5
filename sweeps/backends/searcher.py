"""The bridge between Ray Tune and a session: Tune asks what to run next, and says what came of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from sweeps.backends.connection import node_of_actor
from sweeps.backends.node_tasks import ask_again
from sweeps.backends.nodes import Nodes
from sweeps.backends.trainable import ASSIGNMENT, NODE, NODES, RECORD, UNFIT, WAITS
from sweeps.backends.warm_workers import WarmWorkers
from sweeps.backends.worker_ends import WorkerEnd, end_of_worker
from sweeps.scheduling.retries import STALLED
from sweeps.scheduling.session import Session
from ubt.common.errors import Problem, UserError
from ubt.trials.assignment import Assignment
from ubt.trials.record import TrialRecord

SILENT_SECONDS = 600.0
"""After so long without a sign of life, of which there are two a minute, a worker is ended: it was stopped or hangs."""
SAID_SECONDS = 60.0
_CANNOT_START = (
    "every node needs this version of ubt-sweeper, the study's plug-ins, and what they import, in the Python that its"
    " Ray runs in; no trial was ended by this, so the same command and --resume runs them"
)

_log = logging.getLogger(__name__)


class SessionSearcher(Searcher):
    """Hands Tune a session's assignments. Tune calls by keyword, so the parameters keep its names."""

    def __init__(
        self,
        session: Session,
        workers: int = 1,
        nodes: Nodes | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(metric=None, mode=None)
        self._session = session
        self._nodes = nodes
        self._workers = workers
        self._trials: dict[str, str] = {}
        self._warm = WarmWorkers()
        self._next: Assignment | None = None
        self._asked = False
        self._node_of: dict[str, str] = {}
        """Ray's id of the node that a trial, by its own name, runs on; once it has said so."""
        self._ends: dict[str, WorkerEnd] = {}
        self.cannot_start = ""
        """Why no node could start a worker; empty if one did."""
        self._clock = clock
        self._heard: dict[str, float] = {}
        """When each of Tune's trials last gave a sign of life, once it has given one."""
        self._silenced: set[str] = set()
        self._last_words: dict[str, TrialRecord] = {}
        """Last records of trials whose workers have yet to end."""
        self._said: dict[str, float] = {}
        session.leave_node = self._leave_node

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]
        """Return the next assignment, or an idle trial; None if neither may start yet, FINISHED at the end."""
        self._look_ahead()
        if self._next is None and self._session.finished:
            return Searcher.FINISHED
        if self._next is None or self._warm.starting or self._warm.holding:
            return self._idle_trial(trial_id)
        assignment, self._next = self._next, None
        self._warm.taken()
        self._trials[trial_id] = assignment.trial
        return self._config(assignment)

    def releases_worker(self, trial_id: str, quarantined: bool = False, pending: Iterable[str] = ()) -> bool:
        """Tell whether one of Tune's trials is an idle one that is to end now. It runs, so its worker is up.

        `pending` are those of Tune's trials that wait for a worker.
        """
        if trial_id not in self._warm:
            return False
        if quarantined:
            return True
        self._warm.is_up(trial_id)
        if self._warm.starting:
            return False
        if self._warm.frees_a_worker(each for each in pending if each in self._trials):
            return True
        self._look_ahead()
        if self._next is None:
            return self._session.finished
        return self._warm.release()

    def worker_ended(self, trial_id: str, end: WorkerEnd) -> None:
        """Take down why the worker of one of Tune's trials has ended, before Tune says that the trial has."""
        self._ends[trial_id] = end

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Pass on the record of a trial that is under way."""
        if trial_id in self._trials:
            self._node_of[self._trials[trial_id]] = result.get(NODE, "")
            self._heard[trial_id] = self._clock()
            if RECORD not in result:
                self._say(self._trials[trial_id], result.get(WAITS, ""))
                return
            record = TrialRecord.model_validate_json(result[RECORD])
            if record.state.ended:  # its worker ends next, as it stands still
                self._last_words[trial_id] = record
            else:
                self._session.updated(record)

    def silent(self, trial_id: str) -> bool:
        """Tell whether one of Tune's trials gives no sign of life any more, once it has given one."""
        heard = self._heard.get(trial_id)
        if heard is None or self._clock() - heard < SILENT_SECONDS:
            return False
        del self._heard[trial_id]  # told once
        self._silenced.add(trial_id)
        return True

    def _say(self, trial: str, waits: str) -> None:
        """Say at most once a minute what a trial waits for."""
        if waits and self._clock() - self._said.get(trial, -SAID_SECONDS) >= SAID_SECONDS:
            self._said[trial] = self._clock()
            _log.warning("%s waits for %s", trial, waits)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Pass on a trial's last record, or that its worker died."""
        end = self._ends.pop(trial_id, WorkerEnd())
        if trial_id in self._warm:
            self._warm.ended(trial_id, failed=error)
            if end.cannot_start:
                self._give_up(end)
            return
        trial = self._trials.pop(trial_id)
        self._heard.pop(trial_id, None)
        if trial_id in self._last_words:
            self._session.ended(trial, self._last_words.pop(trial_id))
        elif end.cannot_start:
            self._session.put_back(trial)
            self._give_up(end)
        elif trial_id in self._silenced:
            self._silenced.discard(trial_id)
            node, _ = node_of_actor(end.actor_id, end.ip)
            reason = f"its process gave no sign of life for {SILENT_SECONDS / 60:.0f} min, and was ended"
            self._session.crashed(trial, reason, STALLED, node)
        elif error or not result or RECORD not in result:
            node, node_id = node_of_actor(end.actor_id, end.ip)
            self._node_of[trial] = self._node_of.get(trial) or node_id
            self._session.crashed(trial, f"{end.what}{f' (node {node})' if node else ''}", end.fault, node)
        else:
            self._node_of[trial] = result.get(NODE, "")
            self._session.ended(trial, TrialRecord.model_validate_json(result[RECORD]))

    def _give_up(self, end: WorkerEnd) -> None:
        """Start nothing more on a node whose workers cannot start; nothing at all if there is no other."""
        node, node_id = node_of_actor(end.actor_id, end.ip)
        reason = f"on node {node or 'unknown'}, {end.what}"
        if not self._quarantine(node_id, reason):
            self.cannot_start = reason
            self._session.stop(reason)

    def check_startable(self, running: bool = False) -> None:
        """Raise if workers can start on no node, once none is running: what waits for one would wait for ever.

        Raises:
            UserError: with what keeps them from it.
        """
        if self.cannot_start and not running:
            raise UserError(Problem("the sweep's workers", self.cannot_start, advice=_CANNOT_START))

    def _quarantine(self, node: str, reason: str) -> bool:
        """Start no more trials on a node; False if no other is left, as on one machine."""
        return self._nodes is not None and self._nodes.quarantine(node, reason)

    def _leave_node(self, trial: str, record: TrialRecord) -> bool:
        return self._quarantine(self._node_of.get(trial, ""), record.reason)

    def lost_worker(self) -> None:
        """Note that the worker of a trial that has ended gets no other."""
        self._warm.fewer()

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
        return self._config(None)

    def _config(self, assignment: Assignment | None) -> dict[str, Any]:
        config: dict[str, Any] = {ASSIGNMENT: assignment.as_json() if assignment else None}
        return config if self._nodes is None else {**config, NODES: self._nodes.for_workers()}

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
    """Tune's own order, first come, first served; idle trials end when their workers are needed.

    Nodes in quarantine get none.
    """

    def __init__(self, searcher: SessionSearcher, nodes: Nodes | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._searcher = searcher
        self._nodes = nodes
        self._changes = 0

    def choose_trial_to_run(self, tune_controller: TuneController) -> Trial | None:
        """Tune begins a step."""
        if self._nodes:
            self._nodes.poll()
            if self._nodes.changes != self._changes:
                self._changes = self._nodes.changes
                ask_again(tune_controller)
        self._searcher.check_startable(running=any(each.status == Trial.RUNNING for each in live(tune_controller)))
        chosen: Trial | None = super().choose_trial_to_run(tune_controller)
        return chosen

    def on_trial_error(self, tune_controller: object, trial: Trial) -> None:
        """Take down why a trial's worker is gone. Tune tells its scheduler first, then the searcher."""
        self._searcher.worker_ended(trial.trial_id, end_of_worker(error_text(trial)))

    def on_trial_result(self, tune_controller: TuneController, trial: Trial, result: dict[str, Any]) -> str:
        """Tell Tune whether a trial goes on."""
        pending = [each.trial_id for each in live(tune_controller) if each.status == Trial.PENDING]
        ends = self._searcher.releases_worker(trial.trial_id, self._kept_off(result), pending)
        return self.STOP if ends else self.CONTINUE

    def on_trial_complete(self, tune_controller: object, trial: Trial, result: dict[str, Any]) -> None:
        """Put a node into quarantine whose worker has found that it is not fit."""
        if self._nodes and (unfit := result.get(UNFIT)):
            self._nodes.quarantine(result[NODE], *unfit)

    def _kept_off(self, result: dict[str, Any]) -> bool:
        return self._nodes is not None and result.get(NODE) in self._nodes.quarantined


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
