"""How commands end: their exit status, and what ends one before its work is done."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from enum import IntEnum


class Exit(IntEnum):
    """Exit status of every command; a signal's is 128 and its number, as in a shell."""

    DONE = 0
    SOME_FAILED = 1
    MISTAKE = 2
    FAULT = 3
    HANGUP = 128 + signal.SIGHUP
    INTERRUPTED = 128 + signal.SIGINT
    TERMINATED = 128 + signal.SIGTERM


@dataclass(frozen=True)
class Cause:
    """Why a command ends before its work is done."""

    text: str
    status: int
    """Exit status of the command."""

    @classmethod
    def of_signal(cls, number: int) -> Cause:
        """Return the cause that a signal is; its status is the shell's."""
        return cls(f"interrupted by {signal.Signals(number).name}", 128 + number)


class Ended(KeyboardInterrupt):
    """The command is to end now."""

    def __init__(self, cause: Cause) -> None:
        super().__init__(cause.text)
        self.cause = cause


def cause_of(interrupt: KeyboardInterrupt) -> Cause:
    """Return the cause behind an interruption, also one that came about without us."""
    return interrupt.cause if isinstance(interrupt, Ended) else Cause.of_signal(signal.SIGINT)
