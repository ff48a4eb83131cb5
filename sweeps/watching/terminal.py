"""The display of `ubt watch` in a terminal, and its lines in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from analysis.formatting import percent
from sweeps.watching.look import Look
from ubt.common.formatting import describe, duration
from ubt.trials.record import State

MOST_RUNNING, MOST_MEMBERS = 12, 10
QUIET_SECONDS = 60.0
"""A log gets a line when trials have ended or begun, and at least this often."""


class Display(Protocol):
    """What shows a run."""

    def show(self, look: Look) -> None:
        """Show what the run is at now."""


class Screen:
    """A display that is drawn anew in its place."""

    def __init__(self, live: Live, address: str) -> None:
        self._live = live
        self._address = address

    def show(self, look: Look) -> None:
        """Draw it."""
        self._live.update(screen(look, self._address), refresh=True)


class Log:
    """Plain lines."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._last: tuple[object, ...] = ()
        self._at = -QUIET_SECONDS
        self._clock = clock

    def show(self, look: Look) -> None:
        """Write a line if something has changed that is worth one."""
        now, what = self._clock(), (look.version, look.at_work)
        if what == self._last and now - self._at < QUIET_SECONDS:
            return
        self._last, self._at = what, now
        print(line(look), file=self._stream, flush=True)


@contextmanager
def display(address: str, stream: TextIO | None = None) -> Iterator[Display]:
    """Yield a display for `stream`, by default stdout: one that is drawn anew in a terminal, else lines."""
    stream = stream or sys.stdout
    if not stream.isatty():
        yield Log(stream)
        return
    with Live(console=Console(file=stream), auto_refresh=False) as live:
        yield Screen(live, address)


def line(look: Look) -> str:
    """Return all of it in one line."""
    pace = f" · {look.per_hour:.1f} trials an hour" if look.per_hour else ""
    saved = f" · {duration(look.saved_seconds)} saved by sharing" if look.saved_seconds else ""
    work = "" if look.at_work else f" · {look.work}"
    return f"{look.name} {look.counted}: {look.line}{pace}{saved}{work}"


def screen(look: Look, address: str) -> RenderableType:
    """Return the whole display: how far the sweep is, what runs, the front so far, what failed."""
    total = look.total or max(1, sum(look.states.values()))
    parts: list[RenderableType] = [
        Text.assemble((look.name, "bold"), f"  {look.counted}  ", (_states(look), "dim")),
        _row(ProgressBar(total=total, completed=look.ended, width=60)),
        Text(_effort(look), style="dim"),
    ]
    if look.running:
        parts += [Text(), _running_table(look)]
    if look.findings and look.findings.front:
        parts += [Text(), _front_table(look)]
    for trial, reason in look.failures:
        parts.append(Text(f"{trial} failed: {reason}", style="red", no_wrap=True, overflow="ellipsis"))
    return Group(*parts, Text(), Text(f"{address}   (Ctrl-C ends)", style="dim") if address else Text())


def _row(cell: RenderableType) -> Table:
    """Return what does not end its line by itself as a line."""
    row = Table.grid()
    row.add_row(cell)
    return row


def _states(look: Look) -> str:
    shown = (State.DONE, State.RUNNING, State.FAILED, State.PRUNED, State.INTERRUPTED)
    return ", ".join(f"{look.states[state]:,} {state.lower()}" for state in shown if look.states[state])


def _effort(look: Look) -> str:
    parts = [look.work]
    parts += [f"{look.per_hour:.1f} trials an hour"] if look.per_hour else []
    parts += [f"{duration(look.computed_seconds)} computed, {duration(look.saved_seconds)} saved"]
    parts += [f"about {duration(look.seconds_left)} left"] if look.seconds_left is not None else []
    return " · ".join(parts)


def _running_table(look: Look) -> Table:
    table = Table(
        "running" if look.at_work else "cut off",
        "stage",
        "node",
        "for" if look.at_work else "",
        box=None,
        pad_edge=False,
        header_style="dim",
    )
    for one in look.running[:MOST_RUNNING]:
        table.add_row(one.trial, one.at, one.node, duration(max(0.0, one.seconds)) if look.at_work else "")
    if more := len(look.running) - MOST_RUNNING:
        table.caption = f"and {more} more" if more > 0 else None
    return table


def _front_table(look: Look) -> Table:
    findings = look.findings
    table = Table("front so far", "ASR", "CA", "changes", box=None, pad_edge=False, header_style="dim")
    members = findings.front if findings else ()
    # The choice, and its neighbours on the front, are more than its ends.
    chosen = next((at for at, one in enumerate(members) if findings and one is findings.chosen), 0)
    start = max(0, min(chosen - MOST_MEMBERS // 2, len(members) - MOST_MEMBERS))
    for one in members[start : start + MOST_MEMBERS]:
        is_chosen = findings is not None and one is findings.chosen
        asr = percent(one.val.asr.mean) if one.val and one.val.asr else "–"
        ca = percent(one.val.ca.mean) if one.val else "–"
        name = f"{one.title} *" if is_chosen else one.title
        table.add_row(name, asr, ca, describe(one.changes), style="green" if is_chosen else None)
    return table
