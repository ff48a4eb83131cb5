"""Run a session's trials in this process, one after the other: for debugging, and for the tests of everything else."""

from __future__ import annotations

from sweeps.scheduling.session import Session
from ubt.engine.runner import TrialRunner


def run_inline(session: Session) -> None:
    """Run trials until the session has finished."""
    runner = TrialRunner()
    while (assignment := session.next_assignment()) is not None:
        for record in runner.run(assignment):
            if record.state.ended:
                session.ended(assignment.trial, record)
            else:
                session.updated(record)
