"""Run a study from start to end: check, prepare, sweep, report."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from analysis import Summary, load_run, summarise, write_report
from sweeps.address import INLINE, LOCAL, check_address
from sweeps.cluster import run_on_ray, start_ray, stop_ray
from sweeps.code_version import commit_of_code
from sweeps.gate import Gate
from sweeps.plan import stored_keys
from sweeps.planner import TrialPlanner
from sweeps.preparing import prepare
from sweeps.progress import Tally, progress_view
from sweeps.proposers import proposer_of, with_lag
from sweeps.runs import RunFolder
from sweeps.search.designs import Adaptive
from sweeps.session import Listener, Session
from sweeps.study import StudyConfig
from sweeps.tracking import Tracker
from ubt.errors import UserError
from ubt.records import State, TrialRecord, read_records
from ubt.store import default_store

logger = logging.getLogger(__name__)

FLUSH_SECONDS, INTERRUPTED_SECONDS = 60.0, 3.0
"""How long the end of a sweep waits for MLflow; what is not sent by then waits on disk."""


@dataclass(frozen=True)
class Outcome:
    """How a sweep ended."""

    run: RunFolder
    summary: Summary | None
    """None if no trial got as far as a record."""
    interrupted: bool
    complete: bool
    """Every trial of the study has ended."""
    events_waiting: int
    mlflow_command: str

    @property
    def all_done(self) -> bool:
        """Tell whether every trial ended well."""
        states = self.summary.states if self.summary else {}
        return self.complete and {state for state, count in states.items() if count} == {State.DONE}


def sweep(study: StudyConfig, run: RunFolder, address: str = "local") -> Outcome:
    """Run the study's trials that have no record yet, and write the report.

    Raises:
        UserError: if the store cannot be written, the data or weights cannot be read, or a cluster does not answer
            or is lost; what was done by then is in the report.
    """
    store = study.store or default_store()
    run.check_writable()
    known = read_records(run.records)
    if address not in (LOCAL, INLINE):
        _look_at_cluster(address, store)
    prepare(study, store)
    concurrent = start_ray(address, study.resources) if address != INLINE else 1
    study = with_lag(study, concurrent)
    run.write_study(study)
    tracker = Tracker(study.tracking, run.path, run.path.name, study.as_json(), list(study.search.space))
    tracker.started()
    tally = Tally(_trials(study), study.objectives.ca_floor, known)
    with progress_view(tally) as view:
        session = _session(study, store, run, known, [view, tracker])
        try:
            interrupted = not _execute(session, study, address, concurrent, run)
        except UserError:
            report(run, tracker)
            tracker.close(INTERRUPTED_SECONDS)
            raise
    if session.finished:
        session.close()
    summary = report(run, tracker)
    waiting = tracker.close(INTERRUPTED_SECONDS if interrupted else FLUSH_SECONDS)
    return Outcome(run, summary, interrupted, session.finished, waiting, tracker.command)


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


def report(run: RunFolder, tracker: Tracker | None = None) -> Summary | None:
    """Write the report of what there is, and tell MLflow; None if there are no records."""
    if not any(run.records.glob("*.json")):
        return None
    written = write_report(run.path)
    summary = summarise(load_run(run.path))
    if tracker:
        tracker.finished(summary.model_dump(mode="json"), summary.front, written.page.parent)
    return summary


def _execute(session: Session, study: StudyConfig, address: str, concurrent: int, run: RunFolder) -> bool:
    """Run the trials; False if Ctrl-C ended it. What is done is in the store and the records either way."""
    try:
        if address == INLINE:
            from sweeps.inline import run_inline  # noqa: PLC0415 — torch, which only workers need otherwise

            run_inline(session)
        else:
            run_on_ray(session, study.resources, concurrent, run.path)
    except KeyboardInterrupt:
        return False
    finally:
        if address != INLINE:
            stop_ray()
    return True


def _session(
    study: StudyConfig, store: str, run: RunFolder, known: list[TrialRecord], listeners: list[Listener]
) -> Session:
    planner = TrialPlanner(study, store, commit_of_code())
    return Session(
        proposer=proposer_of(study, run),
        planner=planner,
        replicates=len(study.seeds),
        gate=Gate(stored_keys(store)),
        records=run.records,
        known=known,
        listeners=listeners,
    )


def _trials(study: StudyConfig) -> int:
    if isinstance(study.search, Adaptive):
        return study.search.n_trials * len(study.seeds)
    return sum(study.replicates(proposal) for proposal in study.proposals())
