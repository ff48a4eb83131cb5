"""Workers with a virtual clock behind a `StageScheduler`: what Ray does with it, without Ray and without waiting."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sweeps.scheduling.stage_scheduler import StageScheduler

Pieces = tuple[str, ...]


@dataclass(frozen=True)
class Span:
    """A piece of work that a trial computed, published or not."""

    trial: int
    piece: str
    start: int
    end: int
    published: bool

    @property
    def seconds(self) -> int:
        return self.end - self.start


@dataclass
class Simulation:
    """Runs trials (their number → their pieces in order) on some workers, checking the scheduler at every step."""

    trials: Sequence[Pieces]
    seconds: Mapping[str, int]
    workers: int
    fails_at: Mapping[int, str] = field(default_factory=dict)
    """Trial → the piece during which it fails."""
    spans: list[Span] = field(default_factory=list)
    ended: list[int] = field(default_factory=list)
    started: list[int] = field(default_factory=list)
    clock: int = 0

    def run(self) -> Simulation:
        self._scheduler: StageScheduler[int] = StageScheduler()
        self._published: set[str] = set()
        self._running: dict[int, list[str]] = {}
        self._events: list[tuple[int, int, int]] = []
        for number, pieces in enumerate(self.trials):
            self._scheduler.add(number, pieces)
        self._fill()
        while self._events:
            self.clock, _, trial = heapq.heappop(self._events)
            self._complete(trial)
            self._fill()
        return self

    @property
    def makespan(self) -> int:
        return max((span.end for span in self.spans), default=0)

    @property
    def work(self) -> int:
        """What all workers computed together, including what failed trials computed in vain."""
        return sum(span.seconds for span in self.spans)

    @property
    def last(self) -> int:
        """The trial that ended last."""
        return self.ended[-1]

    def spent_on(self, pieces: Pieces) -> int:
        return sum(span.seconds for span in self.spans if span.piece in pieces)

    def foreign(self, trial: int) -> int:
        """What other trials computed of their own before they came to the last piece that they held of `trial`'s."""
        pieces, total = self.trials[trial], 0
        for other in set(self.started) - {trial}:
            spans = [span for span in self.spans if span.trial == other]
            pending = [piece for piece in self.trials[other] if any(span.piece == piece for span in spans)]
            if other in self.fails_at:  # it held what it never came to until it failed
                pending = list(self.trials[other])
            shared = [position for position, piece in enumerate(pending) if piece in pieces]
            before = pending[: shared[-1]] if shared else []
            total += sum(span.seconds for span in spans if span.piece in before and span.piece not in pieces)
        return total

    def _fill(self) -> None:
        while len(self._running) < self.workers:
            startable = self._scheduler.startable(1), self._scheduler.startable(len(self.trials))
            trial = self._scheduler.start()
            assert (trial is not None) == bool(startable[0]) == bool(startable[1])
            if trial is None:
                self._check_that_all_are_blocked()
                return
            held = self._held()
            assert not held & self._lacking(trial), "two running trials are to compute one piece"
            self.started.append(trial)
            self._running[trial] = [piece for piece in self.trials[trial] if piece in self._lacking(trial)]
            self._go_on(trial)

    def _check_that_all_are_blocked(self) -> None:
        waiting = set(range(len(self.trials))) - set(self.started)
        assert self._scheduler.waiting == len(waiting)
        held = self._held()
        for trial in waiting:
            assert held & self._lacking(trial), f"trial {trial} could have started"

    def _lacking(self, trial: int) -> set[str]:
        return set(self.trials[trial]) - self._published

    def _held(self) -> set[str]:
        return {piece for pieces in self._running.values() for piece in pieces}

    def _go_on(self, trial: int) -> None:
        """Let the trial begin its next piece; with none left it ends at the clock's next tick of no length."""
        ahead = self._running[trial]
        seconds = self.seconds[ahead[0]] if ahead else 0
        heapq.heappush(self._events, (self.clock + seconds, len(self.spans) + len(self._events), trial))

    def _complete(self, trial: int) -> None:
        ahead = self._running[trial]
        if not ahead:
            self._end(trial)
            return
        piece = ahead[0]
        fails = self.fails_at.get(trial) == piece
        assert piece not in self._published, f"{piece} was computed twice"
        self.spans.append(Span(trial, piece, self.clock - self.seconds[piece], self.clock, not fails))
        if fails:
            self._end(trial)
            return
        del ahead[0]
        self._published.add(piece)
        self._scheduler.finished(trial, piece)
        if ahead:
            self._go_on(trial)
        else:
            self._end(trial)

    def _end(self, trial: int) -> None:
        del self._running[trial]
        self._scheduler.ended(trial)
        self.ended.append(trial)
