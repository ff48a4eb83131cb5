"""How a command ends: in order by a signal, and then without waiting for anything."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from ubt.common.ending import Ending, is_watched
from ubt.common.exits import Ended


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
