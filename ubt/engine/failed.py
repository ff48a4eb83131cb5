"""From the error that ended a trial to the record that says so."""

from __future__ import annotations

import logging

import torch

from ubt.common.errors import Fault, StageFault, UserError, Waits
from ubt.common.secrets import without_credentials
from ubt.trials.failures import failure_of
from ubt.trials.record import State, TrialRecord

logger = logging.getLogger(__name__)


def failed(record: TrialRecord, error: Exception) -> TrialRecord:
    """Return the record with its reason. Only an unforeseen error is worth a traceback in the log."""
    kind, lost = _kind(error), says_nothing_of_the_trial(error)
    if isinstance(error, StageFault | UserError | Fault):
        reason = str(error)
    else:
        logger.error("trial %s failed", record.trial, exc_info=None if lost else error)
        reason = f"{kind}: {error}"
    return record.model_copy(
        update={
            "state": State.FAILED,
            "reason": without_credentials(reason),
            "fault": kind,
            "lost": lost,
            "failure": failure_of(kind, lost),
            "waits_for": error.key if isinstance(error, Waits) else "",
        }
    )


def _kind(error: Exception) -> str:
    """Return the name of an error's class, by which a sweep knows what to do; numpy has a `MemoryError` of its own."""
    return "MemoryError" if isinstance(error, MemoryError) else type(error).__name__


def says_nothing_of_the_trial(error: Exception) -> bool:
    """Return whether an error comes from disk, network, store or memory, and might not come again."""
    return isinstance(error, OSError | MemoryError | torch.OutOfMemoryError | Fault)
