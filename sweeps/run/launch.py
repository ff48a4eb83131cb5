"""Run a study from start to end: check, prepare, sweep, report."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from analysis import Summary, load_run, summarise, write_report
from sweeps.backends.connection import INLINE, LOCAL, check_address, start_ray, stop_ray
from sweeps.backends.ray_tune import run_on_ray
from sweeps.planning.plan import stored_keys
from sweeps.planning.trials import TrialPlanner
from sweeps.run.code_version import commit_of_code
from sweeps.run.folder import RunFolder
from sweeps.run.preflight import prepare
from sweeps.run.progress import Tally, progress_view
from sweeps.scheduling.session import Listener, Session
from sweeps.scheduling.stage_scheduler import Gate
from sweeps.study.config import Resources, StudyConfig
from sweeps.tracking import Tracker
from ubt.artifacts.store import default_store
from ubt.common.errors import UserError
from ubt.trials.record import TrialRecord, read_records

logger = logging.getLogger(__name__)

FLUSH_SECONDS, INTERRUPTED_SECONDS = 60.0, 3.0
"""How long the end of a sweep waits for MLflow; what is not sent by then waits on disk."""


@dataclass(frozen=True)
class SweepEnd:
    """How a sweep ended."""

    run: RunFolder
    summary: Summary | None
    """None if no trial got as far as a record."""
    interrupted: bool
    complete: bool
    """Every trial of the study has ended."""
    all_done: bool
    """And every one well."""
    stopped: str
    """Why no more trials were started; empty if nothing was in the way."""
    events_waiting: int
    mlflow_command: str


def sweep(study: StudyConfig, run: RunFolder, address: str = "local") -> SweepEnd:
    """Run the study's trials that no record answers yet, and write the report.

    Raises:
        UserError: if the store cannot be written, the data or weights cannot be read, or a cluster does not answer
            or is lost; what was done by then is in the report.
    """
    store = study.store or default_store()
    run.check_writable()
    if address not in (LOCAL, INLINE):
        _look_at_cluster(address, store)
    with ExitStack() as held:
        if not run.new:
            held.enter_context(run.taken())
        prepare(study, store)
        concurrent = held.enter_context(_workers(address, study.resources))
        # A new run's folder is made last: a mistake met until here leaves nothing behind.
        taken = held.enter_context(run.taken()) if run.new else run
        return _sweep(study.with_search(study.search.for_workers(concurrent)), store, taken, address, concurrent)


@contextmanager
def _workers(address: str, resources: Resources) -> Iterator[int]:
    """Have Ray, where it is wanted, for a while; say how many trials to hand to it at a time."""
    if address == INLINE:
        yield 1
        return
    try:
        yield start_ray(address, resources)
    finally:
        stop_ray()


def _sweep(study: StudyConfig, store: str, run: RunFolder, address: str, concurrent: int) -> SweepEnd:
    known = read_records(run.records)
    run.write_study(study)
    tracker = Tracker(study.tracking, run.path, run.path.name, study.as_json(), list(study.search.space))
    tracker.started()
    tally = Tally(study.trials, study.objectives.ca_floor)
    with progress_view(tally) as view:
        session = _session(study, store, run, known, [view, tracker])
        try:
            interrupted = not _execute(session, study, address, concurrent, run)
        except UserError:
            report(run, tracker, complete=False)
            tracker.close(INTERRUPTED_SECONDS)
            raise
    if session.finished and not session.stopped:
        session.close()
    complete = session.finished and not session.stopped
    summary = report(run, tracker, complete)
    waiting = tracker.close(INTERRUPTED_SECONDS if interrupted else FLUSH_SECONDS)
    return SweepEnd(run, summary, interrupted, complete, session.all_done, session.stopped, waiting, tracker.command)


def _look_at_cluster(address: str, store: str) -> None:
    """Knock before the data is decoded, which may take an hour, and say what a cluster's nodes may not see.

    Raises:
        UserError: if nothing answers at the address.
    """
    check_address(address)
    if "://" not in store:
        logger.warning(
            "the store %s is a folder: every node of the cluster must see the same one (NFS, or use S3)", store
        )


def report(run: RunFolder, tracker: Tracker, complete: bool) -> Summary | None:
    """Write the report of what there is, and tell MLflow; None if there are no records."""
    if not any(run.records.glob("*.json")):
        return None
    try:
        written = write_report(run.path)
    except OSError as error:
        logger.error("the report cannot be written, `ubt report %s` does it later: %s", run.path, error)
        return summarise(load_run(run.path))
    summary = written.summary
    tracker.finished(summary.model_dump(mode="json"), summary.front, written.page.parent, complete)
    return summary


def _execute(session: Session, study: StudyConfig, address: str, concurrent: int, run: RunFolder) -> bool:
    """Run the trials; False if Ctrl-C ended it. What is done is in the store and the records either way."""
    try:
        if address == INLINE:
            from sweeps.backends.inline import run_inline  # noqa: PLC0415 — torch, which only workers need otherwise

            run_inline(session)
        else:
            run_on_ray(session, study.resources, concurrent, run.path)
    except KeyboardInterrupt:
        return False
    finally:
        if address != INLINE:
            stop_ray()  # its processes need not live through the report
    return True


def _session(
    study: StudyConfig, store: str, run: RunFolder, known: list[TrialRecord], listeners: list[Listener]
) -> Session:
    planner = TrialPlanner(study, store, commit_of_code())
    return Session(
        proposer=study.search.proposer(study, run.journal),
        planner=planner,
        replicates=len(study.seeds),
        gate=Gate(stored_keys(store)),
        records=run.records,
        known=known,
        listeners=listeners,
    )
