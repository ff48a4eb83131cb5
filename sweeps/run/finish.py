"""The end of a sweep: how it came about, its report, and the news for MLflow, as long as there is time."""

from __future__ import annotations

import logging
import shlex
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from sweeps.backends.connection import INLINE
from sweeps.backends.lifetime import leave_ray
from sweeps.run.folder import RunFolder
from sweeps.scheduling.session import Session
from sweeps.tracking import Left, Tracker
from sweeps.tracking.faults import fault_of
from ubt.common.ending import current
from ubt.common.exits import Cause, Exit
from ubt.trials.record import TrialRecord

if TYPE_CHECKING:
    from analysis import Summary

logger = logging.getLogger(__name__)

FLUSH_SECONDS, INTERRUPTED_SECONDS = 60.0, 3.0
"""How long the end of a sweep waits for MLflow; what is not sent by then waits on disk."""
_RAY_SECONDS = 2.0
"""How long an interrupted sweep waits for Ray's own end."""
LAST_SECONDS = 0.5
"""What is left of the time for the end of the process."""


@dataclass(frozen=True)
class SweepEnd:
    """How a sweep ended."""

    run: RunFolder
    summary: Summary | None
    """None if no trial got as far as a record."""
    interrupted: Cause | None
    """The signal that ended it."""
    complete: bool
    """Every trial of the study has ended."""
    all_done: bool
    """And every one well."""
    stopped: str
    """The fault for which no more trials were started; empty if there was none."""
    untracked: Left
    """What MLflow does not have of it."""
    budget: str = ""
    """What is spent of the study's budget, and which limit is reached; empty without one."""
    over_budget: bool = False
    """Trials were left out for it."""
    report_fault: str = ""
    """Why there is no report; empty if there is one, or nothing to report."""

    @property
    def mlflow_command(self) -> str:
        """Return what a user types to look at the study in MLflow."""
        return f"ubt ui {shlex.quote(self.run.shown)}"

    @property
    def status(self) -> int:
        """Return the exit status of a command that ends so."""
        if self.interrupted:
            return self.interrupted.status
        if not self.complete:
            return Exit.FAULT
        return Exit.DONE if self.all_done and not self.report_fault else Exit.SOME_FAILED


class EndImports:
    """Imports what a report is written with beside the first trial: seconds of this process, which only waits then.

    At the beginning of a sweep, and at its end, everything else would wait for it.
    """

    def __init__(self) -> None:
        self._thread = threading.Thread(target=_import_for_the_end, name="imports", daemon=True)

    def updated(self, record: TrialRecord) -> None:
        """A trial is under way."""
        if self._thread.ident is None:
            self._thread.start()

    def answered(self, record: TrialRecord) -> None:
        """Nothing: there may be no trial left."""


def _import_for_the_end() -> None:
    with suppress(Exception):  # the report itself says what is in the way
        import_module("analysis.report").load()


@dataclass(frozen=True)
class Reported:
    """What came of the report."""

    summary: Summary | None
    """None if there are no records, or they cannot be summed up."""
    fault: str = ""
    """Why it could not be written."""


def report(run: RunFolder, tracker: Tracker, complete: bool) -> Reported:
    """Write the report of what there is, and tell MLflow that the sweep ended, also if there is a fault in it."""
    if not any(run.records.glob("*.json")):
        return Reported(None)
    fault = ""
    try:
        with current().step(LAST_SECONDS + INTERRUPTED_SECONDS / 2):
            from analysis import write_report  # noqa: PLC0415 — pandas and Plotly, 1 s, which no trial need wait for

            summary: Summary | None = write_report(run.path).summary
    except KeyboardInterrupt:
        fault = "no time was left"
        summary = _summary(run)
    except Exception as error:  # drawing and libraries may raise anything; what was measured is kept
        fault = f"{type(error).__name__}: {error}"
        logger.error("the report cannot be written, `ubt report %s` does it later: %s", run.shown, fault)
        logger.debug("where the report failed", exc_info=True)
        summary = _summary(run)
    afterwards("MLflow cannot be told of the end", lambda: tracker.finished(complete))
    return Reported(summary, fault)


def afterwards(trouble: str, step: Callable[[], None]) -> None:
    """Take a step after the last trial: an error in it does not end a sweep that has its results."""
    try:
        step()
    except Exception as error:
        logger.error("%s: %s: %s", trouble, type(error).__name__, error)
        logger.debug("where that failed", exc_info=True)


def _summary(run: RunFolder) -> Summary | None:
    try:
        with suppress(KeyboardInterrupt), current().step(LAST_SECONDS + 0.5):
            from analysis import load_run  # noqa: PLC0415 — as above

            return load_run(run.path).summary
    except Exception as error:  # noqa: BLE001 — as above: said there
        logger.debug("the run cannot be summed up: %s", error)
    return None


def close(tracker: Tracker, at_most_seconds: float) -> Left:
    """Send MLflow what it lacks, as long as there is time; return what is left. It does not end a sweep either."""
    ending = current()
    try:
        with suppress(KeyboardInterrupt), ending.step(LAST_SECONDS):
            return tracker.close(ending.left(at_most_seconds, LAST_SECONDS))
        return tracker.close(0.0)
    except Exception as error:
        fault = fault_of(error)
        logger.error("MLflow cannot be told of the end: %s", fault)
        logger.debug("where that failed", exc_info=True)
        return Left(1, str(fault), fault.advice)


def stand_in(session: Session, run: RunFolder, tracker: Tracker) -> Callable[[Cause], None]:
    """Return what ends a sweep from another thread, when the main one is stuck: Ray may wait in C++ for a lost head."""

    def end(cause: Cause) -> None:
        session.interrupt(cause.text)
        report(run, tracker, complete=False)
        close(tracker, INTERRUPTED_SECONDS)
        run.settle(INTERRUPTED_SECONDS)

    return end


@contextmanager
def leaving_ray(address: str, cause: Cause | None = None) -> Iterator[None]:
    """Leave Ray, whose processes need not live through the report, beside it; before it where an end is in a hurry."""
    if address == INLINE:
        yield
        return
    wait = leave_ray()
    if cause:
        wait(_RAY_SECONDS)
    try:
        yield
    finally:
        wait(current().left(FLUSH_SECONDS, LAST_SECONDS))
