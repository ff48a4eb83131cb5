"""Live progress: a bar in a terminal, plain lines in a log."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ubt.common.formatting import describe, duration
from ubt.common.statistics import keeps_accuracy
from ubt.trials.labels import cell_of
from ubt.trials.record import State, TrialRecord

_QUIET_SECONDS = 10.0
"""A log gets a line when a trial ends, and at least this often while one works."""


class Tally:
    """Counts trials and knows the best so far. The arithmetic of progress, without its looks."""

    def __init__(self, total: int, ca_floor: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.total = total
        self._ca_floor = ca_floor
        self._records: dict[str, TrialRecord] = {}
        self._clock = clock
        self._ends: list[float] = []

    def note(self, record: TrialRecord) -> None:
        """Take note of a trial's newest record."""
        self._records[record.trial] = record
        if record.state.ended:
            self._ends.append(self._clock())

    def answered(self, record: TrialRecord) -> None:
        """Count a trial that had ended before, as after `--resume`; it says nothing of the pace."""
        self._records[record.trial] = record

    def count(self, state: State) -> int:
        """Return how many trials are in a state."""
        return Counter(record.state for record in self._records.values())[state]

    @property
    def ended(self) -> int:
        """Return how many trials have ended."""
        return sum(1 for record in self._records.values() if record.state.ended)

    @property
    def best(self) -> TrialRecord | None:
        """Return the trial with the lowest validation ASR that keeps its clean accuracy; None in a comparison.

        (Its trials have different victims, of which the easiest would be shown.)
        """
        if any(cell_of(record.label) for record in self._records.values()):
            return None
        good = [r for r in self._records.values() if r.state is State.DONE and self._keeps_accuracy(r)]
        return min(good, key=lambda r: (r.val.asr, -r.val.ca) if r.val else (1.0, 0.0), default=None)

    @property
    def seconds_left(self) -> float | None:
        """Return a guess from the pace since the first trial ended; None before a second has.

        The first trial computes the victim, which the others share: its time says nothing of theirs.
        """
        if len(self._ends) < 2:
            return None
        pace = (self._ends[-1] - self._ends[0]) / (len(self._ends) - 1)
        return pace * max(0, self.total - self.ended)

    def _keeps_accuracy(self, record: TrialRecord) -> bool:
        if record.val is None or record.poisoned_val is None:
            return False
        return keeps_accuracy(record.poisoned_val.ca - record.val.ca, self._ca_floor)

    def line(self) -> str:
        """Return all of it in one line."""
        best, left = self.best, self.seconds_left
        parts = [
            f"{self.count(State.DONE)} done, {self.count(State.RUNNING)} running, {self.count(State.FAILED)} failed"
        ]
        if best and best.val:
            parts.append(f"best ASR {best.val.asr:.3f} at CA {best.val.ca:.3f} ({best.trial})")
        if left is not None and self.ended < self.total:
            parts.append(f"about {duration(left)} left")
        return " · ".join(parts)


class Bar:
    """Progress in a terminal."""

    def __init__(self, tally: Tally, console: Console) -> None:
        self._tally = tally
        columns = [
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}"),
        ]
        self._bar = Progress(*columns, console=console)
        self._task = self._bar.add_task("starting workers …", total=tally.total, completed=tally.ended)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def answered(self, record: TrialRecord) -> None:
        """Redraw."""
        self._tally.answered(record)
        self._bar.update(self._task, completed=self._tally.ended)

    def updated(self, record: TrialRecord) -> None:
        """Redraw."""
        self._tally.note(record)
        now = "" if record.state.ended else f"\n{_doing(record)}"
        self._bar.update(self._task, completed=self._tally.ended, description=self._tally.line() + now)
        if record.state is State.FAILED:
            self._bar.console.print(f"{record.trial} {_result(record)}", style="red", markup=False, highlight=False)


class Lines:
    """Progress in a log."""

    def __init__(self, tally: Tally, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._tally = tally
        self._stream = stream
        self._clock = clock
        self._began = self._last = clock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._stream.flush()

    def answered(self, record: TrialRecord) -> None:
        """Count it."""
        self._tally.answered(record)

    def updated(self, record: TrialRecord) -> None:
        """Write a line if a trial ended, or if it has been quiet for long."""
        self._tally.note(record)
        now = self._clock()
        if record.state.ended:
            self._write(now, f"{record.trial} {_result(record)} | {self._tally.line()}")
        elif now - self._last > _QUIET_SECONDS:
            self._write(now, f"{_doing(record)} | {self._tally.line()}")

    def _write(self, now: float, text: str) -> None:
        self._last = now
        counted = f"{self._tally.ended}/{self._tally.total}"
        print(f"[{duration(now - self._began)}] {counted} {text}", file=self._stream, flush=True)


def progress_view(tally: Tally, stream: TextIO | None = None) -> Bar | Lines:
    """Return a bar if `stream`, by default stderr, is a terminal, else lines."""
    stream = stream or sys.stderr
    return Bar(tally, Console(file=stream)) if stream.isatty() else Lines(tally, stream)


def _doing(record: TrialRecord) -> str:
    """Return what a trial is at: its stage, and its epoch if it has any."""
    if not record.stages:
        return f"{record.trial} is starting"
    stage = record.stages[-1]
    return f"{record.trial} {stage.stage}" + (f" epoch {stage.epochs[-1].epoch}" if stage.epochs else "")


def _result(record: TrialRecord) -> str:
    if record.val is None:
        return f"FAILED: {record.reason.splitlines()[0] if record.reason else 'for no known reason'}"
    named = f"{record.label}: " if record.label else ""
    return f"ASR {record.val.asr:.3f} CA {record.val.ca:.3f} ({named}{describe(record.changes)})"
