"""Run a study from start to end: check, prepare, run its trials, report."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Literal

from sweeps.backends.connection import INLINE, LOCAL, check_address, start_ray
from sweeps.backends.execute import run_inline, run_on_ray
from sweeps.backends.fitness import Expected
from sweeps.backends.lifetime import stop_ray
from sweeps.backends.nodes import Nodes
from sweeps.backends.watch import watched
from sweeps.planning.plan import stored_keys
from sweeps.planning.trials import TrialPlanner
from sweeps.run.commit import commit_of_code
from sweeps.run.earlier_epochs import with_earlier_epochs
from sweeps.run.expectation import expected
from sweeps.run.finish import (
    FLUSH_SECONDS,
    INTERRUPTED_SECONDS,
    LAST_SECONDS,
    EndImports,
    SweepEnd,
    afterwards,
    close,
    leaving_ray,
    report,
    stand_in,
)
from sweeps.run.folder import RunFolder
from sweeps.run.places import new_run
from sweeps.run.preflight import decode_on_a_node, expected_of, prepare
from sweeps.run.progress import progress_view
from sweeps.run.resume import run_for
from sweeps.scheduling.elsewhere import Elsewhere
from sweeps.scheduling.meter import Meter
from sweeps.scheduling.outcomes import Listener
from sweeps.scheduling.racing import raced
from sweeps.scheduling.session import Session
from sweeps.scheduling.stage_scheduler import StageScheduler
from sweeps.scheduling.store_budget import StoreBudget, keys_of_front
from sweeps.scheduling.warm_start import keep_warm_start, warm_start
from sweeps.search.budgeted import limited
from sweeps.search.lagged import in_step
from sweeps.search.proposals import Proposal, Proposer
from sweeps.study.config import Resources, StudyConfig
from sweeps.tracking import Tracker
from ubt.artifacts.store import default_store
from ubt.common.ending import GRACE_SECONDS, current, orderly_end
from ubt.common.exits import Cause, Exit, cause_of
from ubt.trials.record import StageRecord, State, TrialRecord, write_record

logger = logging.getLogger(__name__)


def sweep(
    study: StudyConfig,
    out: Path | str = "runs",
    address: str = LOCAL,
    *,
    resume: bool | Literal["auto"] = False,
    extend: bool = False,
    add_trials: int = 0,
    grace_seconds: float = GRACE_SECONDS,
    begun: Callable[[RunFolder], None] = lambda run: None,
) -> SweepEnd:
    """Run a study into a folder of its own: every trial, sharing every stage, then the report.

    Args:
        study: as `load_study` returns it.
        out: folder of run folders, or an address such as `s3://bucket/runs`; the run gets `out/NAME`, or the next free
            of `out/NAME-2` and so on.
        address: `local` (a Ray of our own on this machine), `inline` (this process, no Ray), `auto`, `HOST:PORT` or
            `ray://HOST:PORT` of a cluster.
        resume: go on with the run of this study that was used last; what has ended there is not run again. With
            `"auto"` a run is begun if there is none.
        extend: like `resume`, though the search has changed.
        add_trials: like `resume`, with so many trials more than before; for an adaptive search.
        grace_seconds: from a signal to the end; see `ubt sweep --grace`.
        begun: called with the run's folder when the run has begun.

    Example:
        >>> end = sweep(load_study("smoke"), "runs", address="inline")  # doctest: +SKIP
        >>> end.run.path, end.all_done, end.summary.chosen.test.asr  # doctest: +SKIP
        (PosixPath('/home/ann/runs/smoke'), True, 0.02)

    Raises:
        UserError: if the study differs from the run that goes on, or as `run_study`.
    """
    run, study = run_for(study, out, resume, extend, add_trials)
    with orderly_end() as ending:
        ending.grace_seconds = grace_seconds
        return run_study(study, run, address, begun)


def run_study(
    study: StudyConfig,
    run: RunFolder,
    address: str = LOCAL,
    begun: Callable[[RunFolder], None] = lambda run: None,
) -> SweepEnd:
    """Run the study's trials that no record in the run folder answers yet, and write the report.

    Raises:
        UserError: if the store cannot be written, the data or weights cannot be read, or a cluster does not answer.
        Ended: by a signal before the run has begun.
    """
    store = study.store or default_store()
    run.check_writable()
    if address not in (LOCAL, INLINE):
        check_address(address)  # before the data is decoded, which may take an hour
    with orderly_end() as ending, ExitStack() as held:
        if not run.new:
            held.enter_context(run.taken())
        earlier = warm_start(study, None if run.new else run.journal.parent)
        # Decoded images of a store at an address lie on each node's own disk: this machine, which runs no trials of a
        # cluster's, would decode them for nothing.
        elsewhere = "://" in store and address not in (LOCAL, INLINE)
        images = {} if elsewhere else prepare(study, store, inline=address == INLINE)
        concurrent = held.enter_context(_workers(address, study))
        cluster = None
        if elsewhere:
            with watched(current()):
                images = prepare(study, store, decode_on_a_node)
        if address not in (LOCAL, INLINE):
            cluster = held.enter_context(_checked_nodes(expected_of(study, store, images), study.resources))
        # A new run's folder is made last: a mistake met until here leaves nothing behind.
        taken = held.enter_context(run.taken()) if run.new else run
        study = study.with_search(study.search.for_workers(concurrent))
        with ending.closing():
            known = taken.begin(study)
            keep_warm_start(study, taken.journal.parent, earlier)
            begun(taken)
            return _run(study, store, taken, known, address, concurrent, cluster)


@contextmanager
def _workers(address: str, study: StudyConfig) -> Iterator[int]:
    """Have Ray, where it is wanted, for a while; say how many trials to hand to it at a time."""
    if address == INLINE:
        yield 1
        return
    try:
        yield start_ray(address, study.resources, study.trials)
    finally:
        stop_ray(current().left(FLUSH_SECONDS, LAST_SECONDS))


@contextmanager
def _checked_nodes(expected: Expected, resources: Resources) -> Iterator[Nodes]:
    """Look at every node of the cluster that this process has joined; have them for a while.

    Raises:
        UserError: if no node is fit for trials.
    """
    from sweeps.backends.node_tasks import RayCluster  # noqa: PLC0415 — Ray

    with closing(Nodes(expected, resources, RayCluster())) as nodes:
        with watched(current()):
            nodes.check()
        yield nodes


def _run(
    study: StudyConfig,
    store: str,
    run: RunFolder,
    known: list[TrialRecord],
    address: str,
    concurrent: int,
    cluster: Nodes | None,
) -> SweepEnd:
    tracker = Tracker(study.tracking, run.path)
    tracker.started()
    meter = Meter(study.search.budget, study.gpus, known)
    budget: StoreBudget | None = None
    if study.store_budget:
        budget = StoreBudget(study.store_budget, store, lambda: keys_of_front(run.path))
    with progress_view(expected(study, run, concurrent)) as view:
        session = _session(study, store, run, known, [view, tracker, meter, EndImports()], budget)
        session.used_up = meter.used_up
        current().at_worst = stand_in(session, run, tracker)
        if budget:
            budget.begin()
        try:
            cause = _execute(session, study, address, concurrent, run, cluster)
        except Exception:  # whatever it was, MLflow must not show a sweep that runs
            with leaving_ray(address):
                report(run, tracker, complete=False)
                close(tracker, INTERRUPTED_SECONDS)
            raise
    with leaving_ray(address, cause):
        if budget and not cause:
            afterwards("the store cannot be kept within its budget", budget.close)
        complete = session.finished and (not session.stopped or meter.stopped) and not cause
        if complete:
            afterwards("the search cannot be closed", session.close)
        reported = report(run, tracker, complete)
        untracked = close(tracker, INTERRUPTED_SECONDS if _signal(cause) else FLUSH_SECONDS)
    return SweepEnd(
        run,
        reported.summary,
        _signal(cause) or _signal(current().cause),
        complete,
        complete and session.all_done,
        cause.text if cause and not _signal(cause) else ("" if meter.stopped else session.stopped),
        untracked,
        meter.told,
        meter.stopped,
        reported.fault,
    )


def _signal(cause: Cause | None) -> Cause | None:
    return cause if cause and cause.status != Exit.FAULT else None


def _execute(
    session: Session, study: StudyConfig, address: str, concurrent: int, run: RunFolder, cluster: Nodes | None
) -> Cause | None:
    """Run the trials; return what ended them early. What is done is in the store and the records either way."""
    ending, cause = current(), None
    try:
        if address == INLINE:
            with ending.patient(0.0):
                run_inline(session)
        else:
            run_on_ray(session, study.resources, concurrent, run.path, cluster=cluster)
    except KeyboardInterrupt as interrupt:
        cause = cause_of(interrupt)
        session.interrupt(cause.text)
    except Exception as error:
        session.interrupt(f"the sweep ended: {str(error).partition(chr(10))[0] or type(error).__name__}")
        raise
    return cause


def _session(
    study: StudyConfig,
    store: str,
    run: RunFolder,
    known: list[TrialRecord],
    listeners: list[Listener],
    budget: StoreBudget | None,
) -> Session:
    planner = TrialPlanner(study, store, commit_of_code())
    return Session(
        proposer=with_earlier_epochs(_proposer(study, run, known), study, run, planner),
        planner=budget.watching(planner) if budget else planner,
        replicates=len(study.seeds),
        scheduler=StageScheduler(stored_keys(store)),
        records=run.records,
        known=known,
        listeners=[*listeners, *filter(None, [budget])],
        rule=study.rule,
        ca_floor=study.ca_floor,
        retries=study.resources.retries,
        stall_minutes=study.resources.stall_minutes,
        elsewhere=Elsewhere(store),
    )


def _proposer(study: StudyConfig, run: RunFolder, known: list[TrialRecord]) -> Proposer:
    """Return what proposes the study's trials: its search, in step or raced where that is asked for, in its budget."""
    search = study.search.proposer(study, run.journal, known)
    return limited(raced(in_step(search, study), study), study)


def run_once(
    study: StudyConfig, out: Path | str, show: Callable[[StageRecord], None] = lambda stage: None
) -> TrialRecord:
    """Run the study's base configuration with its first seed in this process, and return the trial's last record.

    `show` is called with the newest stage after every stage and epoch.

    Raises:
        UserError: if the store, the data or the weights cannot be used.
    """
    store = study.store or default_store()
    folder = new_run(out, study.name)
    folder.check_writable()
    prepare(study, store, inline=True)
    with folder.taken() as run:
        run.begin(study)
        assignment = TrialPlanner(study, store, commit_of_code())(Proposal(0), 0).assignment
        from ubt.engine.runner import TrialRunner  # noqa: PLC0415 — torch, 5 s, after all mistakes have been met

        record = assignment.record(State.RUNNING)
        with closing(TrialRunner(patient=True)) as runner:
            for record in runner.run(assignment):
                write_record(run.records, record)
                if record.stages:
                    show(record.stages[-1])
        return record
