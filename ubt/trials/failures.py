"""What a trial failed by: a fault of the machine, somebody's mistake, or the method. Loads no torch."""

from __future__ import annotations

from enum import StrEnum

from ubt.common.errors import NotFinite, StageFault, StoppedByGate, WeakImplant


class Failure(StrEnum):
    """What a trial failed by."""

    FAULT = "fault"
    """The machine, a worker, a disk, the network or memory: it says nothing of the configuration."""
    MISTAKE = "mistake"
    """What was given, or code: a module that cannot be imported, data that differs, an unforeseen error."""
    METHOD = "method"
    """The configuration itself: a loss that is not finite, a gate, an implant that is too weak. It is a result."""


_OF_THE_METHOD = {error.__name__ for error in (StageFault, StoppedByGate, NotFinite, WeakImplant)}


def failure_of(fault: str, lost: bool) -> Failure | None:
    """Return what a trial failed by, from the name of the error's class and whether it says nothing of the trial.

    None if there is no name, as in old records: then it is not known.
    """
    if lost:
        return Failure.FAULT
    if not fault:
        return None
    return Failure.METHOD if fault in _OF_THE_METHOD else Failure.MISTAKE
