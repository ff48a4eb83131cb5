"""How far a long loop has come: a bar in a terminal, a line every tenth in a log, and signs of life for a watchdog."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import TextIO, TypeVar

from rich.console import Console
from rich.progress import track

from ubt.common.formatting import duration

Item = TypeVar("Item")

QUIET_SECONDS = 1.0
"""The least time between two log lines."""

_log = logging.getLogger(__name__)


class Pulse:
    """When the work of this process last came on, and what it waits for: what a watchdog looks at.

    A long loop beats in each round; to beat costs less than a microsecond. Images and captions that a model sees,
    epochs, blocks of poisoned images and everything in `progress` beat already.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last = clock()
        self.waits_for = ""
        """What it waits for, if it does: for a store that does not answer, say."""
        self.stage = ""
        """What is being computed, by name; "data" while that is loaded."""

    def beat(self) -> None:
        """Note that the work has come on."""
        self._last = self._clock()
        self.waits_for = ""

    def begin(self, stage: str) -> None:
        """Note what is computed from now on."""
        self.stage = stage
        self.beat()

    def wait(self, what: str) -> None:
        """Note that the work waits for something, which does not count as standing still."""
        self._last = self._clock()
        self.waits_for = what

    @property
    def silent_seconds(self) -> float:
        """Return how long the work has not come on."""
        return self._clock() - self._last


PULSE = Pulse()
"""This process's: a worker runs one trial at a time."""
beat = PULSE.beat


def progress(items: Iterable[Item], total: int, label: str) -> Iterator[Item]:
    """Yield `items` and show how many of `total` are done.

    A terminal gets a bar on stderr. Anything else (a file, a Ray worker) gets about ten log lines, because a
    bar redrawn thousands of times makes a log unreadable; and none for what takes no time.
    """
    if sys.stderr.isatty():
        for item in track(items, label, total=total, console=Console(stderr=True), transient=True):
            beat()
            yield item
        return
    reported, silent_since = 0, time.monotonic()
    for done, item in enumerate(items, start=1):
        beat()
        yield item
        tenths = 10 * done // max(total, 1)
        if tenths > reported and time.monotonic() - silent_since >= QUIET_SECONDS:
            reported, silent_since = tenths, time.monotonic()
            _log.info("%s: %d %% (%d of %d)", label, 10 * tenths, done, total)


class Silence:
    """Since when nothing was said of waits that follow one another: together they may be long, each of them short."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since = self._over = clock()

    def begin(self) -> float:
        """Begin a wait; return for how many seconds those before it have been silent."""
        if (now := self._clock()) - self._over > _APART_SECONDS:
            self._since = now
        return now - self._since

    def said(self) -> None:
        """Note that something was said."""
        self._since = self._clock()

    def over(self) -> None:
        """Note that a wait is over."""
        self._over = self._clock()

    @property
    def seconds(self) -> float:
        """Return for how long nothing has been said."""
        return self._clock() - self._since


_APART_SECONDS = 15.0
"""Waits with more between them are not one: a command's imports on a busy machine are less."""
SILENCE = Silence()
"""This process's, from its start."""


@contextmanager
def waiting_for(what: str, stream: TextIO | None = None, every_seconds: float = 30.0) -> Iterator[None]:
    """Say what is waited for when nothing has been said for so long, also of waits before it; again and again."""
    over, began = Event(), time.monotonic()
    SILENCE.begin()

    def say() -> None:
        while not over.wait(max(every_seconds - SILENCE.seconds, min(every_seconds, 1.0))):
            if SILENCE.seconds >= every_seconds:
                waited = duration(time.monotonic() - began)
                print(f"waiting for {what} since {waited}", file=stream or sys.stderr, flush=True)
                SILENCE.said()

    Thread(target=say, name="waiting", daemon=True).start()
    try:
        yield
    finally:
        over.set()
        SILENCE.over()
