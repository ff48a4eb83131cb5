"""Run a study from start to end: check, prepare, sweep, report."""

from __future__ import annotations

import logging
import subprocess
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from analysis import Summary, load_run, summarise, write_report
from sweeps.checks import problems_of
from sweeps.cluster import LOCAL, check_address, run_on_ray, start_ray, stop_ray
from sweeps.gate import Gate
from sweeps.planner import TrialPlanner
from sweeps.progress import Tally, progress_view
from sweeps.runs import RunFolder
from sweeps.search.comparing import ComparisonProposer
from sweeps.search.designs import Adaptive, Comparison
from sweeps.search.proposer import DesignProposer, Proposer
from sweeps.search.space import samples_of
from sweeps.session import Listener, Session
from sweeps.study import StudyConfig
from sweeps.tracking import Tracker
from ubt.errors import Problem, UserError
from ubt.fingerprint import fingerprint
from ubt.models.names import image_size_px
from ubt.records import State, TrialRecord, read_records
from ubt.stages.table import STAGES
from ubt.store import ArtifactStore, default_store, local_cache
from ubt.victim import VictimConfig

logger = logging.getLogger(__name__)

INLINE = "inline"
"""Address that runs trials in this process, one after the other, without Ray."""
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
    study = _with_lag(study, concurrent)
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


def prepare(study: StudyConfig, store: str) -> None:
    """Meet every mistake before a worker starts: the store, the data (decoded here, once), the weights.

    Raises:
        UserError: with everything that cannot be used.
    """
    ArtifactStore(store).check_writable()  # decoded images go there too
    problems: list[Problem] = []
    victims = _victims(study)
    for data, size_px in {(victim.data, image_size_px(victim.model.name)): None for victim in victims}:
        problems += problems_of(partial(data.load, size_px, local_cache(store)))
    with_weights = [v for v in victims if v.model.checkpoint or v.model.pretrained or v.implant.checkpoint]
    if with_weights:
        from ubt.models.check import check_weights  # noqa: PLC0415 — torch, 5 s, only where there are weights

        for victim in {(victim.model, victim.implant.checkpoint): victim for victim in with_weights}.values():
            problems += problems_of(partial(check_weights, victim))
    if problems:
        raise UserError(problems)


def report(run: RunFolder, tracker: Tracker | None = None) -> Summary | None:
    """Write the report of what there is, and tell MLflow; None if there are no records."""
    if not any(run.records.glob("*.json")):
        return None
    written = write_report(run.path)
    summary = summarise(load_run(run.path))
    if tracker:
        tracker.finished(summary.model_dump(mode="json"), summary.front, written.page.parent)
    return summary


def commit_of_code() -> str:
    """Return the commit this code is at, with a `+` if it was changed; "" outside a checkout."""
    folder = Path(__file__).parent
    try:
        head = _git(folder, "rev-parse", "--short=12", "HEAD")
        return head + ("+" if _git(folder, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


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


def _git(folder: Path, *words: str) -> str:
    return subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=True).stdout.strip()


def _victims(study: StudyConfig) -> list[VictimConfig]:
    """Return the victims that trials have; of an adaptive search those with one searched value each."""
    search = study.search
    if isinstance(search, Adaptive):
        layout = [{}, *({path: value} for path, dim in search.space.items() for value in samples_of(dim)[0])]
    else:
        layout = study.layout()
    return list(dict.fromkeys(study.trial(changes).victim for changes in layout))


def _with_lag(study: StudyConfig, concurrent: int) -> StudyConfig:
    """Settle how far the search runs ahead of its results, so that the study as written down says it."""
    if not isinstance(study.search, Adaptive) or study.search.lag:
        return study
    search = study.search.model_copy(update={"lag": max(4, 2 * concurrent)})
    return study.with_parts(search=search)


def _session(
    study: StudyConfig, store: str, run: RunFolder, known: list[TrialRecord], listeners: list[Listener]
) -> Session:
    planner = TrialPlanner(study, store, commit_of_code())
    artifacts = ArtifactStore(store)
    done = {key for stage in STAGES for key in artifacts.keys(stage)}
    return Session(
        proposer=_proposer(study, run),
        planner=planner,
        replicates=len(study.seeds),
        gate=Gate(done),
        records=run.records,
        known=known,
        listeners=listeners,
    )


def _proposer(study: StudyConfig, run: RunFolder) -> Proposer:
    if isinstance(study.search, Comparison):
        return ComparisonProposer(study.search, study.objectives.ca_floor)
    if not isinstance(study.search, Adaptive):
        laid_out = study.proposals()
        return DesignProposer([one.changes for one in laid_out], [one.label for one in laid_out])
    from sweeps.search.adaptive import OptunaProposer  # noqa: PLC0415 — designs need no Optuna

    assert study.search.lag is not None  # noqa: S101 — settled before
    floor = study.objectives.ca_floor
    # Another space is another Optuna study in the same journal: answers of one make no sense to the other.
    space = fingerprint(study.search.model_dump(mode="json", include={"space", "when", "sampler", "sampler_seed"}))
    name = f"{run.path.name}-{space[:8]}"
    return OptunaProposer(study.search, study.base, study.search.lag, run.journal, name, floor)


def _trials(study: StudyConfig) -> int:
    if isinstance(study.search, Adaptive):
        return study.search.n_trials * len(study.seeds)
    return sum(study.replicates(proposal) for proposal in study.proposals())
