"""The bridge between Ray Tune and a session: Tune asks what to run next, and says what came of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ray.tune.search import Searcher

from sweeps.backends.connection import node_of_actor
from sweeps.backends.nodes import Nodes
from sweeps.backends.trainable import ASSIGNMENT, NODE, NODES, RECORD, WAITS, WORKER
from sweeps.scheduling.retries import NODE_DIED, NODE_LEFT, STALLED
from sweeps.scheduling.session import Session
from sweeps.scheduling.worker_ends import WorkerEnd
from sweeps.workers.places import Place, Places
from sweeps.workers.pool import Capacity, Pool
from ubt.common.errors import Problem, UserError
from ubt.trials.assignment import Assignment
from ubt.trials.failures import Failure
from ubt.trials.record import State, TrialRecord

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
        capacity: Capacity,
        nodes: Nodes | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(metric=None, mode=None)
        self._session = session
        self._nodes = nodes
        self._trials: dict[str, str] = {}
        self.pool = Pool(capacity, clock)
        self._places = Places()
        self.for_free: set[str] = set()
        """Those of Tune's trials that were made for a worker that is free, until they have said so."""
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
        """Return an assignment for the worker that is free, or an idle trial; None if no more workers are wanted.

        FINISHED at the end.
        """
        place = self.pool.free()
        if self._session.finished:
            return Searcher.FINISHED
        if place is None and not self.pool.cannot_start:
            return self._ask_for_worker(trial_id)
        lacking = self.pool.lacking(len(self._trials), self._wanted())
        if place is None and lacking <= 0:
            return None
        near = self._places.near(place) if place else ()
        if assignment := self._session.next_assignment(near):  # without a place: its record says why no worker starts
            self.pool.came_on()
            self._trials[trial_id] = assignment.name
        elif place is None or (lacking <= 0 and not self.pool.asked_for):
            return None
        else:
            self.pool.keep(trial_id, place)
        if place:
            self.for_free.add(trial_id)
        return self._config(assignment)

    def _ask_for_worker(self, trial_id: str) -> dict[str, Any] | None:
        if self.pool.lacking(len(self._trials), self._wanted()) <= 0:
            return None
        self.pool.ask(trial_id)
        return self._config(None)

    def _wanted(self) -> int:
        """Return how many workers there should be."""
        busy, most = len(self._trials), self.pool.capacity.most
        return self.pool.wanted(busy, self._session.ready(most), self._session.to_come(most))

    def unused(self) -> list[str]:
        """Return those of Tune's trials that are to be taken back: their workers are not up, and no longer needed."""
        return self.pool.unused(len(self._trials), self._wanted())

    def has_assignment(self, trial_id: str) -> bool:
        """Tell whether one of Tune's trials runs one of the study's."""
        return trial_id in self._trials

    def releases_worker(self, trial_id: str, place: Place, kept_off: bool = False, pending: Iterable[str] = ()) -> bool:
        """Tell whether one of Tune's trials is an idle one that is to end now. It runs, so its worker is up.

        `pending` are those of Tune's trials that wait for a worker; `kept_off` says that its node gets no more trials.
        """
        if trial_id not in self.pool:
            return False
        self.pool.keep(trial_id, place)
        if kept_off:
            self.pool.leaves(trial_id)
            return True
        waiting = [each for each in pending if each in self._trials and each not in self.for_free]
        ready = self._session.ready(1) or self._session.side_run_ready
        return self.pool.ends_with(trial_id, len(self._trials), ready, self._wanted(), waiting)

    def worker_ended(self, trial_id: str, end: WorkerEnd) -> None:
        """Take down why the worker of one of Tune's trials has ended, before Tune says that the trial has."""
        self._ends[trial_id] = end

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Pass on the record of a trial that is under way."""
        self.for_free.discard(trial_id)
        self.pool.cannot_start = False
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
                self.pool.came_on()
                self._session.updated(record, self._trials[trial_id])

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
        self.for_free.discard(trial_id)
        if trial_id in self.pool:
            self.pool.ended(trial_id, failed=error)
            if end.cannot_start:
                self._give_up(end)
            return
        trial = self._trials.pop(trial_id)
        if result and not error:
            self.pool.freed(place_of(result))
        self.pool.came_on()
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
            fault = NODE_LEFT if end.fault == NODE_DIED and self._leaves(self._node_of[trial]) else end.fault
            self._session.crashed(trial, f"{end.what}{f' (node {node})' if node else ''}", fault, node)
        else:
            self._node_of[trial] = result.get(NODE, "")
            record = TrialRecord.model_validate_json(result[RECORD])
            self._places.note(place_of(result), record)
            self._session.ended(trial, record if record.state.ended else handed_back(record))

    def hands_back(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Tell whether one of Tune's trials ends early: its node leaves the cluster, or no trial needs what it does."""
        if trial_id in self._trials and self._session.is_over(self._trials[trial_id]):
            return True
        if trial_id not in self._trials or RECORD not in result or not self._leaves(result.get(NODE, "")):
            return False
        record = TrialRecord.model_validate_json(result[RECORD])
        return record.state.ended or not record.stages or record.stages[-1].complete

    def _leaves(self, node: str) -> bool:
        return self._nodes is not None and node in self._nodes.leaving

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
        self.pool.lost()

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


def place_of(result: Mapping[str, Any]) -> Place:
    """Return where the worker is that a result comes from."""
    return Place(result.get(WORKER, ""), result.get(NODE, ""))


def handed_back(record: TrialRecord) -> TrialRecord:
    """Return the record of a run that was ended between two stages, as its node leaves the cluster."""
    lost = {"state": State.FAILED, "fault": NODE_LEFT, "lost": True, "failure": Failure.FAULT}
    return record.model_copy(update={**lost, "reason": "its node leaves the cluster"})
