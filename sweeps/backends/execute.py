"""Run a session's trials: one after the other in this process, or on Ray.

This process keeps the session (search, records, tracking) wherever the trials run.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeps.backends.beforehand import taken_by_tune
from sweeps.backends.connection import capacity, nodes
from sweeps.backends.watch import watched
from sweeps.backends.work import Watchdog, stalled_record
from sweeps.scheduling.retries import STALLED
from sweeps.scheduling.session import Session
from sweeps.study.config import Resources
from sweeps.workers.pool import Capacity
from ubt.common.ending import current
from ubt.common.errors import Stalled
from ubt.common.exits import Cause, Ended, Exit
from ubt.trials.assignment import Assignment
from ubt.trials.record import State

if TYPE_CHECKING:
    from ray import tune

    from sweeps.backends.nodes import Nodes

_ASK_SECONDS = 1.0
_MOST_TRIALS = 10_000
"""More than Tune ever has at a time: how many are wanted is told to the searcher by the capacity of the nodes."""
_STEP_SECONDS = 2.0
"""How long a step of Tune's may take to its end when the sweep is to end."""


def run_inline(session: Session) -> None:
    """Run trials in this process until the session has finished: for debugging, and for tests of everything else."""
    from ubt.engine.runner import TrialRunner  # noqa: PLC0415 — torch, which only workers need otherwise

    with closing(TrialRunner()) as runner:
        while (assignment := _next(session)) is not None:
            watchdog, record = Watchdog(assignment), assignment.record(State.RUNNING)
            with suppress(Stalled), watchdog:  # which may be raised where the trial has just ended, too
                for record in runner.run(assignment):
                    if not record.state.ended:
                        session.updated(record)
                        current().check()
            if watchdog.found and (not record.state.ended or record.fault == STALLED):
                record = stalled_record(record, *watchdog.found)
            session.ended(assignment.trial, record)
            current().check()


def _next(session: Session) -> Assignment | None:
    """Return the next trial to run; if there is none but one that waits for another sweep, wait with it."""
    while (assignment := session.next_assignment()) is None and session.awaited and not session.stopped:
        time.sleep(_ASK_SECONDS)
        current().check()
    return assignment


def run_on_ray(
    session: Session,
    resources: Resources,
    concurrent: int,
    folder: Path,
    trainable: type[tune.Trainable] | None = None,
    cluster: Nodes | None = None,
) -> None:
    """Run trials until the session has finished; `trainable` may stand in for the real one in measurements.

    `cluster` has the nodes that were looked at, where trials run on others than this machine; as many run at a time as
    fit on these while they come and go. Else `concurrent` do.

    Raises:
        Ended: if it is interrupted, the connection to a cluster is lost, or Tune fails; what is done is in the store
            and the records.
        UserError: if no node is fit any more; likewise.
    """
    from ray import tune  # noqa: PLC0415
    from ray.exceptions import RayError  # noqa: PLC0415
    from ray.tune.error import TuneError  # noqa: PLC0415

    from sweeps.backends.node_tasks import WorkerRequest  # noqa: PLC0415
    from sweeps.backends.order import Interruption, Order, Retirement, Silence  # noqa: PLC0415
    from sweeps.backends.searcher import SessionSearcher  # noqa: PLC0415
    from sweeps.backends.trainable import UbtTrainable  # noqa: PLC0415

    ending = current()
    here = 0 if cluster else min(concurrent, capacity(resources, nodes()))
    searcher = SessionSearcher(session, cluster.capacity if cluster else Capacity(here, here, kept=True), nodes=cluster)
    # Tune ends by looking for result files that we do not let it write, and complains of each. It copies its own state,
    # which a resume does not read, to the run folder, and prints a stack where that is full.
    for name in ("ray.tune", "ray.train"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        with (
            _staging(folder / "ray" / "staging"),
            nullcontext() if cluster else taken_by_tune(),
            ending.patient(_STEP_SECONDS),
            watched(ending),
        ):
            # Not `tune.Tuner`, which over a Ray client moves itself, and a pickled session, to the cluster's head.
            tune.run(
                trainable or UbtTrainable,
                _remote=False,
                name="tune",
                storage_path=str(folder / "ray"),
                resources_per_trial=WorkerRequest(resources, cluster),
                search_alg=searcher,
                scheduler=Order(searcher, cluster),
                callbacks=[Interruption(ending, session), Retirement(searcher, cluster), Silence(searcher)],
                num_samples=-1,
                max_concurrent_trials=_MOST_TRIALS,
                reuse_actors=True,
                max_failures=0,  # the session runs trials again, as it knows why they ended
                raise_on_failed_trial=False,
                checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
                verbose=0,
            )
    except ConnectionError as error:
        raise Ended(Cause(f"the cluster was lost: {error}", Exit.FAULT)) from error
    except (TuneError, RayError, OSError) as error:
        last = str(error).strip().splitlines()[-1:]
        raise Ended(Cause(f"Ray ended the trials early: {''.join(last)}", Exit.FAULT)) from error
    searcher.check_startable()


@contextmanager
def _staging(folder: Path) -> Iterator[None]:
    """Give Tune a folder for its own files where Ray has none for it.

    They lie in the folder of this machine's Ray node. Over a Ray client there is no such node, which is all that
    keeps Tune from running in this process then.
    """
    import ray  # noqa: PLC0415

    if not ray.util.client.ray.is_connected():  # type: ignore[no-untyped-call]
        yield
        return
    storage: Any = import_module("ray.train._internal.storage")  # private, so Ray is pinned: there is no public way
    of_the_node = storage._get_ray_train_session_dir
    storage._get_ray_train_session_dir = lambda: str(folder)
    try:
        yield
    finally:
        storage._get_ray_train_session_dir = of_the_node
