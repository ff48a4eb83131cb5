"""One sweep in progress: proposals become trials, the stage scheduler says which may start, records say what happened.

Knows nothing of Ray: the Tune searcher, the run in one process and the simulator in the tests all drive it
through `next_assignment`, `updated` and `ended`. A run of a trial that ends without being an end of the trial is
followed by another one, by the rules of `sweeps.scheduling.retries`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sweeps.planning.trials import PlannedTrial
from sweeps.scheduling.beside import Beside
from sweeps.scheduling.elsewhere import Elsewhere
from sweeps.scheduling.outcomes import (
    FailedVictims,
    Listener,
    NumberedTrials,
    OwnWork,
    Planner,
    Replicated,
    attempts_after,
    attempts_before,
)
from sweeps.scheduling.retries import WORKER_DIED, LostInARow, Retries, Rule
from sweeps.scheduling.stage_scheduler import StageScheduler
from sweeps.scheduling.stalls import StageTimes
from sweeps.search.proposals import Proposal, Proposer
from ubt.common.choice import CA_FLOOR, RuleName
from ubt.common.secrets import without_credentials
from ubt.trials.assignment import Assignment
from ubt.trials.failures import Failure
from ubt.trials.record import Attempt, State, TrialRecord, write_record


class Session:
    """Decides what runs next and keeps the records."""

    def __init__(
        self,
        proposer: Proposer,
        planner: Planner,
        replicates: int,
        scheduler: StageScheduler[str],
        records: Path,
        known: Sequence[TrialRecord] = (),
        listeners: Sequence[Listener] = (),
        rule: RuleName = "lowest_asr",
        ca_floor: float = CA_FLOOR,
        retries: int = 2,
        stall_minutes: float | None = None,
        elsewhere: Elsewhere | None = None,
    ) -> None:
        self._proposer = proposer
        self._trials_of = NumberedTrials(planner, known, replicates)
        self._scheduler = scheduler
        self._folder = records
        self._known = {record.trial: record for record in known}
        self._listeners = list(listeners)
        self._planned: dict[str, PlannedTrial] = {}
        self._replicated = Replicated(proposer, rule, ca_floor)
        self._failed_victims = FailedVictims()
        self._newest: dict[str, TrialRecord] = {}
        self._states: dict[str, State] = {}
        self._retries = Retries(retries)
        self._stage_times = StageTimes(known, stall_minutes)
        self._earlier: dict[str, tuple[Attempt, ...]] = {}
        """Runs of trials that are run again, each with what ended it."""
        self._unfit: dict[str, None] = {}
        """Why nodes can run no trial, each reason once."""
        self._again: set[str] = set()
        """Trials that wait for another run; their newest record says how the last one ended."""
        self._alone: dict[str, str] = {}
        self._own_work = OwnWork()
        self._elsewhere = elsewhere
        self._beside = Beside(scheduler, self._planned, self._own_work, self.arrived)
        self.awaited: set[str] = set()
        """Keys of stages that other sweeps compute and trials of this one wait for; see `arrived`."""
        self.leave_node: Callable[[str, TrialRecord], bool] = lambda trial, record: False
        """Keeps trials off the node that a trial ran on; False if no other node is left. Set by who knows nodes."""
        self._lost = LostInARow(known)
        self.used_up: Callable[[], str] = str  # what is spent, once a budget is used up; set by who counts
        self.stopped = ""
        """Why nothing more is started; empty unless `stop` was called."""

    @property
    def finished(self) -> bool:
        """Tell whether every trial that was started has ended and no further one will be."""
        left_to_start = not self.stopped and (self._scheduler.waiting or not self._proposer.exhausted)
        return not (left_to_start or self._scheduler.running)

    @property
    def all_done(self) -> bool:
        """Tell whether every trial that will be started has ended, and well: stopping one early is no failure."""
        return self.finished and set(self._states.values()) <= {State.DONE, State.PRUNED}

    @property
    def waiting(self) -> int:
        """Return how many trials are known that have not started."""
        return self._scheduler.waiting

    def ready(self, at_most: int) -> int:
        """Return how many trials may start now, side by side; of many no more than are asked for."""
        self._refill()
        return 0 if self.stopped else self._scheduler.startable(at_most)

    def to_come(self, at_most: int) -> int:
        """Return how many trials are yet to start, ready or not; of many, or where it is not known, so many."""
        if self.stopped:
            return 0
        known = self._scheduler.waiting + self.side_run_ready
        return min(known, at_most) if self._proposer.exhausted else at_most

    @property
    def side_run_ready(self) -> bool:
        """Tell whether stages may be computed beside a trial that is at another one."""
        return not self.stopped and self._elsewhere is not None and self._beside.ready and self._elsewhere.leases_hold

    def is_over(self, run: str) -> bool:
        """Tell whether a run of a trial is one beside it that no trial needs any more."""
        return run in self._beside and self.finished

    def next_assignment(self, near: Sequence[str] = ()) -> Assignment | None:
        """Return the trial to start now, or a run beside one; None if none may start before something else happens.

        `near` are keys of stages whose artifacts lie on the worker that asks, or on its node, from the nearest on.
        """
        self._refill()
        while not self.stopped and (trial := self._scheduler.start(near)) is not None:
            planned = self._planned[trial]
            if (failed := self._failed_victims.reason_to_skip(planned)) is None:
                self._again.discard(trial)
                self._beside.began(trial)
                given = {"alone": self._alone.get(trial, ""), "stopping": self._replicated.stops.rule_of(planned)}
                limits = {"stall_seconds": self._stage_times.seconds, "stall_seconds_of": self._stage_times.seconds_of}
                return planned.assignment.model_copy(update=given | limits)
            self.ended(trial, failed)
            self._refill()
        return self._beside.assignment() if self.side_run_ready else None

    def updated(self, record: TrialRecord, run: str = "") -> None:
        """Take a running trial's record: write it down, free the stages it has done, pass it to the listeners."""
        if self._beside.updated(run, record):
            return
        self._beside.came_on(record)
        planned = self._planned[record.trial]
        attempts = (*self._earlier.get(record.trial, ()), *record.attempts[-1:])  # a worker knows of its own run alone
        record = record.model_copy(update={"attempts": attempts, "stages": self._own_work.stages(record)})
        self._newest[record.trial] = record
        self._write(record)
        for stage, node in zip(record.stages, planned.pipeline, strict=False):
            for piece in planned.done_pieces(node, stage):
                self._scheduler.finished(record.trial, piece)

    def ended(self, trial: str, record: TrialRecord) -> None:
        """Take the last record of a trial's run: what it left undone is free again.

        If it was lost, the trial may run again; else its outcome goes to the search.
        """
        if self._beside.ended(trial, record):
            return
        if record.lost and (record.waits_for or not self.stopped):
            again = self._retries.after(trial, record.fault)
            if again and self._run_again(trial, record, again):
                return
            if again:  # which no node can run: what was given must differ
                told = "\n".join(["no node is left that can run it:", *self._unfit])
                record = record.model_copy(update={"failure": Failure.MISTAKE, "reason": told})
        self.updated(record)
        self._beside.left(trial)
        self._newest.pop(trial, None)
        self._scheduler.ended(trial)
        self._states[trial] = record.state
        self._stage_times.note(record)
        self._failed_victims.note(record)
        if reason := self._lost.too_many(record):
            self.stop(reason)
        self._replicated.ended(record)

    def crashed(self, trial: str, reason: str, fault: str = WORKER_DIED, node: str = "") -> None:
        """Note that a trial's worker is gone, and its node; what it had done stays in its record."""
        if self._beside.ended(trial):
            return
        record = self._newest.get(trial) or self._planned[trial].assignment.record(State.RUNNING)
        before = len(self._earlier.get(trial, ()))  # unless there is one more, this run has come to no record
        attempts = record.attempts if len(record.attempts) > before else (Attempt(node=node),)
        lost = {"state": State.FAILED, "reason": reason, "fault": fault, "lost": True, "failure": Failure.FAULT}
        self.ended(trial, record.model_copy(update={**lost, "attempts": attempts}))

    def put_back(self, trial: str) -> None:
        """Let a trial wait that is to run again, or that no worker has taken on."""
        if self._beside.ended(trial):
            return
        self._beside.left(trial)
        self._scheduler.ended(trial)
        self._wait(self._planned[trial])
        if trial in self._newest:
            self._again.add(trial)
            if self.stopped:
                self._give_up([trial], self.stopped)

    def arrived(self, key: str, done: bool) -> None:
        """Note that a stage that another sweep computed is in the store, or that no process computes it any more."""
        self.awaited.discard(key)
        self._scheduler.returned(key, done)

    def interrupt(self, why: str) -> None:
        """Give up what runs: its records say so, and a resume goes on with it."""
        self._give_up(self._newest, why)

    def _give_up(self, trials: Iterable[str], why: str) -> None:
        for record in [one for one in map(self._newest.__getitem__, trials) if not one.state.ended]:
            self._write(record.model_copy(update={"state": State.INTERRUPTED, "reason": why, "waits_for": ""}))

    def close(self) -> None:
        """Settle what the search has open, when all is done."""
        with self._stopping("the search cannot be written down"):
            self._proposer.finish()

    def stop(self, reason: str) -> None:
        """Start nothing more; what runs may end, and a resume runs the rest."""
        if not self.stopped:
            self.stopped = without_credentials(reason)
            self._give_up(self._again, reason)

    def _refill(self) -> None:
        """Take what has come from elsewhere, and the proposals; trials that have a record are answered from it."""
        for key, done in self._elsewhere.arrivals() if self._elsewhere else ():
            self.arrived(key, done)
        while proposal := self._next_proposal():
            planned = self._trials_of(proposal)
            self._replicated.begin(proposal, planned)
            for trial in planned:
                self._admit(trial)
        if not self.stopped and (self.waiting or not self._proposer.exhausted) and (spent := self.used_up()):
            self.stop(spent)

    def _next_proposal(self) -> Proposal | None:
        try:
            return None if self.stopped else self._proposer.propose()
        except OSError as error:
            self.stop(f"the search cannot be written down: {error}")
            return None

    def _admit(self, planned: PlannedTrial) -> None:
        name, known = planned.name, self._known.get(planned.name)
        self._planned[name] = planned
        if known is None or not planned.is_answered_by(known):
            if known and (known.lost or not known.state.ended) and known.config == planned.assignment.recorded_config:
                self._earlier[name] = attempts_before(known)
            self._wait(planned)
            return
        self._states[name] = known.state
        self._failed_victims.note(known)
        for listener in self._listeners:
            listener.answered(known)
        self._replicated.ended(known)

    def _wait(self, planned: PlannedTrial) -> None:
        self._scheduler.add(planned.name, [piece for node in planned.pipeline for piece in planned.pieces(node)])

    def _run_again(self, trial: str, record: TrialRecord, rule: Rule) -> bool:
        """Let a trial wait for another run; False if it has no other node to run on."""
        if rule.leaves_node:
            self._unfit.setdefault(record.reason)
            if not self.leave_node(trial, record):
                return False
        before = self._earlier.get(trial, ())
        if rule.waits:
            self.awaited.add(record.waits_for)
            self._scheduler.elsewhere(record.waits_for)
            if self._elsewhere:
                nodes = self._planned[trial].pipeline
                self._elsewhere.wait_for(next(node for node in nodes if node.key == record.waits_for), trial)
        else:
            before = attempts_after(before, record)
        self._alone[trial] = rule.alone or self._alone.get(trial, "")
        waiting = {"state": State.RUNNING, "fault": "", "lost": False, "failure": None}
        waiting |= {} if rule.waits else {"reason": "", "waits_for": ""}
        self._earlier[trial] = before
        self._own_work.keep(record)
        self.updated(record.model_copy(update={**waiting, "attempts": ()}))
        self.put_back(trial)
        return True

    def _write(self, record: TrialRecord) -> None:
        with self._stopping(f"the record of {record.trial} cannot be written"):
            write_record(self._folder, record)
        for listener in self._listeners:
            listener.updated(record)

    @contextmanager
    def _stopping(self, trouble: str) -> Iterator[None]:
        """Start nothing more if the disk fails: what is not written down is run again by a resume."""
        try:
            yield
        except OSError as error:
            self.stop(f"{trouble}: {error}")
