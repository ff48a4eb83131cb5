"""Live progress: a bar in a terminal, plain lines in a log."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable
from threading import Event, Lock, Thread
from typing import Protocol, Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from sweeps.scheduling.leaderboard import Best, Leaderboard
from ubt.common.choice import RuleName
from ubt.common.formatting import describe, duration
from ubt.common.progress import SILENCE
from ubt.trials.record import State, TrialRecord

_QUIET_SECONDS = 10.0
"""A log gets a line when a trial ends, and at least this often while one works."""
_SILENT_SECONDS = 30.0
"""After so long without a line a log gets one that says what is waited for."""
_LOOK_SECONDS = 5.0


class Left(Protocol):
    """What says how long a sweep still takes; `sweeps.planning.time_left.TimeLeft` does."""

    def note(self, record: TrialRecord) -> None:
        """Take note of a trial's newest record."""

    @property
    def seconds(self) -> float | None:
        """Return how long it still takes; None if that is unknown."""


class Tally:
    """Counts trials and knows the best so far. The arithmetic of progress, without its looks.

    Every record is taken into account once, when it comes: a line costs the same after ten trials and ten thousand.
    """

    def __init__(
        self,
        total: int,
        ca_floor: float,
        rule: RuleName = "lowest_asr",
        time_left: Left | None = None,
        every_epoch: bool = False,
    ) -> None:
        self.total = total
        self._states: dict[str, State] = {}
        self._counts: Counter[State] = Counter()
        self._leaderboard = Leaderboard(ca_floor, rule, every_epoch)
        self._compared = False
        self._time_left = time_left

    def note(self, record: TrialRecord) -> None:
        """Take note of a trial's newest record, or of one that had ended before, as after `--resume`."""
        if self._time_left:
            self._time_left.note(record)
        before = self._states.get(record.trial)
        if before is not None:
            self._counts[before] -= 1
        elif record.label.epoch_of:  # not known beforehand
            self.total += 1
        self._states[record.trial] = record.state
        self._counts[record.state] += 1
        self._compared = self._compared or record.label.cell is not None
        if {State.DONE, State.PRUNED} & {before, record.state}:
            self._leaderboard.take(record)

    def count(self, state: State) -> int:
        """Return how many trials are in a state."""
        return self._counts[state]

    @property
    def ended(self) -> int:
        """Return how many trials have ended."""
        return sum(count for state, count in self._counts.items() if state.ended)

    @property
    def best(self) -> Best | None:
        """Return the configuration that would be chosen now; None in a comparison.

        (Its trials have different victims, of which the easiest would be shown.)
        """
        return None if self._compared else self._leaderboard.best

    @property
    def seconds_left(self) -> float | None:
        """Return how long the sweep still takes; None if that is unknown."""
        return self._time_left.seconds if self._time_left else None

    def line(self) -> str:
        """Return all of it in one line."""
        best, left = self.best, self.seconds_left
        parts = [
            f"{self.count(State.DONE)} done, {self.count(State.RUNNING)} running, {self.count(State.FAILED)} failed"
        ]
        parts[0] += f", {pruned} stopped early" if (pruned := self.count(State.PRUNED)) else ""
        if best:
            mean = f", mean of {best.seeds} seeds" if best.seeds > 1 else ""
            asr = "" if best.asr is None else f"ASR {best.asr:.3f} at "
            at = f" after epoch {best.epoch}" if best.epoch else ""
            parts.append(f"best {asr}CA {best.ca:.3f} ({best.trial}{at}{mean})")
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
        self._tally.note(record)
        self._bar.update(self._task, completed=self._tally.ended)

    def updated(self, record: TrialRecord) -> None:
        """Redraw."""
        self._tally.note(record)
        now = "" if record.state.ended else f"\n{_doing(record)}"
        self._bar.update(self._task, completed=self._tally.ended, description=self._tally.line() + now)
        if record.state is State.FAILED:
            self._bar.console.print(f"{record.trial} {_result(record)}", style="red", markup=False, highlight=False)
        if record.runs_again:
            self._bar.console.print(_doing(record), style="yellow", markup=False, highlight=False)


class Lines:
    """Progress in a log."""

    def __init__(
        self, tally: Tally, stream: TextIO, clock: Callable[[], float] = time.monotonic, silent_seconds: float = 0.0
    ) -> None:
        self._tally = tally
        self._stream = stream
        self._clock = clock
        self._silent_before = silent_seconds
        """For how long, when this began, nothing had been said of what came before; 0 from the first line on."""
        self._began = self._last = clock()
        self._running: dict[str, tuple[str, float]] = {}
        """Trial → what it is at, and since when."""
        self._writing = Lock()
        self._closed = Event()

    def __enter__(self) -> Self:
        Thread(target=self._look, name="progress", daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._closed.set()
        self._stream.flush()

    def answered(self, record: TrialRecord) -> None:
        """Count it."""
        with self._writing:
            self._tally.note(record)

    def updated(self, record: TrialRecord) -> None:
        """Write a line if a trial ended, or if it has been quiet for long."""
        with self._writing:
            self._note(record)

    def tick(self) -> None:
        """Write what is waited for, if there has been no line for long."""
        with self._writing:
            if (now := self._clock()) - self._last + self._silent_before > _SILENT_SECONDS:
                at = [f"{doing} for {duration(now - since)}" for doing, since in self._running.values()]
                self._write(now, f"waiting for {'; '.join(at) or 'workers to start'} | {self._tally.line()}")

    def _look(self) -> None:
        while not self._closed.wait(_LOOK_SECONDS):
            self.tick()

    def _note(self, record: TrialRecord) -> None:
        self._tally.note(record)
        now = self._clock()
        if record.state.ended:
            self._running.pop(record.trial, None)
        elif (doing := _doing(record)) != self._running.get(record.trial, ("",))[0]:
            self._running[record.trial] = (doing, now)
        if record.state.ended:
            self._write(now, f"{record.trial} {_result(record)} | {self._tally.line()}")
        elif record.runs_again or now - self._last > _QUIET_SECONDS:
            self._write(now, f"{_doing(record)} | {self._tally.line()}")

    def _write(self, now: float, text: str) -> None:
        self._last, self._silent_before = now, 0.0
        counted = f"{self._tally.ended}/{self._tally.total}"
        print(f"[{duration(now - self._began)}] {counted} {text}", file=self._stream, flush=True)


def progress_view(tally: Tally, stream: TextIO | None = None) -> Bar | Lines:
    """Return a bar if `stream`, by default stderr, is a terminal, else lines."""
    stream = stream or sys.stderr
    return Bar(tally, Console(file=stream)) if stream.isatty() else Lines(tally, stream, silent_seconds=SILENCE.begin())


def _doing(record: TrialRecord) -> str:
    """Return what a trial is at: its stage, and its epoch if it has any; or why it is run again."""
    if record.waits_for:
        return f"{record.trial} waits: {record.reason}"
    if record.runs_again:
        why = record.runs_again.splitlines()[0]
        return f"run {len(record.attempts) + 1} of {record.trial}, as the one before ended by {why}"
    last = record.stages[-1] if record.stages else None
    resumed = f", resumed at epoch {last.resumed}" if last and last.resumed and not last.complete else ""
    return f"{record.trial} {at(record)}{resumed}"


def at(record: TrialRecord) -> str:
    """Return in words what a running trial is at: its stage, and the last epoch of it that has ended."""
    last = record.stages[-1] if record.stages else None
    if last is None or (record.at and record.at != last.stage):
        return record.at or "is starting"
    return last.stage + (f" epoch {last.epochs[-1].epoch}" if last.epochs else "")


def _result(record: TrialRecord) -> str:
    if record.val is None:
        return f"{record.state}: {record.reason.splitlines()[0] if record.reason else 'for no known reason'}"
    named = f"{record.label}: " if record.label else ""
    return f"{record.val} ({named}{describe(record.changes)})"
