"""How a command ends: in order by a signal, and then without waiting for anything; and else within a time."""

from __future__ import annotations

import atexit
import logging
import os
import shlex
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

from ubt.common.ending import SIGNALS, Ending, is_watched
from ubt.common.exits import Ended

logger = logging.getLogger(__name__)

LAST_SECONDS = 10.0
"""What libraries may still take to tidy up when a command has done all that it had to."""


@contextmanager
def command_end() -> Iterator[None]:
    """Be a command: signals end it in order, and a process that was to end does so without waiting for anything.

    What Python or a library would still wait for may never come.
    """
    if is_watched():
        yield
        return
    with _without_swallowed(), Ending(hard=True) as ending:
        ending.last_words = f". Start again with:\n  {shlex.join(['ubt', *sys.argv[1:]])}"
        try:
            yield
        finally:
            if ending.cause is not None:
                if not ending.told:
                    print(ending.farewell(ending.cause), file=sys.stderr)
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(ending.cause.status)


@contextmanager
def _without_swallowed() -> Iterator[None]:
    """Say nothing of an `Ended` that was raised in a destructor, where Python swallows it: it is raised again."""
    before = sys.unraisablehook

    def tell(unraisable: sys.UnraisableHookArgs) -> None:
        if not isinstance(unraisable.exc_value, Ended):
            before(unraisable)

    sys.unraisablehook = tell
    try:
        yield
    finally:
        sys.unraisablehook = before


@contextmanager
def left_in_time(seconds: float = LAST_SECONDS) -> Iterator[None]:
    """End the process with the status that a command exits with, at the latest so many seconds after that.

    Python would wait without limit for threads and exit functions of libraries: a sweep whose driver had been stopped
    for a minute had said all, and was there for good.
    """
    try:
        yield
    except SystemExit as end:
        _leave(end, seconds)
    _leave(SystemExit(0), seconds)


def _leave(end: SystemExit, seconds: float) -> NoReturn:
    for number in SIGNALS:  # all is said: one more would take the status only
        signal.signal(number, signal.SIG_IGN)
    if not isinstance(end.code, int | None):
        print(end.code, file=sys.stderr)
        end.code = 1
    # Exit functions are Python's own list, which there is no public way to; in a thread, as they may hang in C++.
    tidying = threading.Thread(target=atexit._run_exitfuncs, name="tidies up", daemon=True)
    try:
        _flush()
        tidying.start()
        tidying.join(seconds)
        if tidying.is_alive():
            logger.debug("left without waiting for %s", ", ".join(one.name for one in threading.enumerate()))
        _flush()
    finally:
        os._exit(end.code or 0)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # its reader has gone, or it is closed
            stream.flush()
