"""How far a long loop has come: a bar in a terminal, a line every tenth in a log."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import track

Item = TypeVar("Item")

QUIET_SECONDS = 1.0
"""The least time between two log lines."""

_log = logging.getLogger(__name__)


def progress(items: Iterable[Item], total: int, label: str) -> Iterator[Item]:
    """Yield `items` and show how many of `total` are done.

    A terminal gets a bar on stderr. Anything else (a file, a Ray worker) gets about ten log lines, because a
    bar redrawn thousands of times makes a log unreadable; and none for what takes no time.
    """
    if sys.stderr.isatty():
        yield from track(items, label, total=total, console=Console(stderr=True), transient=True)
        return
    reported, silent_since = 0, time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        tenths = 10 * done // max(total, 1)
        if tenths > reported and time.monotonic() - silent_since >= QUIET_SECONDS:
            reported, silent_since = tenths, time.monotonic()
            _log.info("%s: %d %% (%d of %d)", label, 10 * tenths, done, total)
