"""How long a sweep still takes: the plan's own stages and their costs, corrected by what stages take as it goes."""

from __future__ import annotations

import time
from bisect import insort
from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from statistics import median

from sweeps.planning.costs import CostModel, Piece, tasks_of
from sweeps.planning.plan import Forecast, total
from sweeps.planning.trials import TrialPlanner
from sweeps.planning.wall import wall_seconds
from sweeps.search.proposals import Proposal
from ubt.engine.graph import Pipeline
from ubt.trials.record import StageRecord, TrialRecord

_OFTEN_ENOUGH_SECONDS = 1.0
_SHARE = 0.02
"""Of its time a sweep spends at most so much on working out how long it takes."""
_OVERRUN = 0.1
"""A stage that takes longer than it should goes on for so much of what it has taken."""
_OWN, _OTHERS = 0.5, 0.02
"""What stages are expected to take weighs as much as half a stage of their own kind, and as this part of all work, in
the time that they are found to take."""
_AS_IMAGINED = 0.5
"""That configurations which results decide need what their stand-ins need weighs as much as half a trial that began."""
_MOST = 2.0
"""A trial counts as needing at most so many times what its stand-in needs, which may be next to nothing."""


@dataclass
class _Pace:
    """What stages have taken in this sweep, beside what they should have."""

    seconds: float = 0.0
    planned: float = 0.0
    weight: float = 0.0
    """How much work they were, beside others of their kind."""

    def add(self, seconds: float, planned: float, weight: float) -> None:
        """Add a stage."""
        self.seconds += seconds
        self.planned += planned
        self.weight += weight

    def factor(self, weight: float, expected: float = 1.0) -> float:
        """Return by how much it differs from the plan; `expected` weighs as much as so many planned seconds."""
        return (self.seconds + weight * expected) / (self.planned + weight) if self.planned + weight > 0 else expected


class TimeLeft:
    """Follows the records of a sweep. What nothing is known of, before the first such stage has ended, is unknown."""

    def __init__(
        self,
        forecast: Forecast,
        planner: TrialPlanner,
        seeds: int,
        workers: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._model: CostModel = forecast.model
        self._planner = planner
        self._seeds = seeds
        self._workers = workers
        self._clock = clock
        self._done = set(forecast.stored)
        self._known = {name: pipeline for name, (_, pipeline) in forecast.laid.trials.items()}
        """Trials that are known and have not begun, by name."""
        self._imagined = deque(pipeline for _, pipeline in forecast.laid.imagined)
        self._needed = _Pace()
        """What trials needed that took the place of a stand-in, each beside what that one needs: a search may ask for
        what the store has, and one that learns asks for what shares more."""
        self._begun: dict[str, Pipeline] = {}
        """Trials that have begun and not ended."""
        self._running: dict[str, tuple[str, float]] = {}
        """Trial → the key of the stage that it computes, and when it began."""
        self._seen: set[str] = set()
        self._walked: dict[str, None] = {}
        """Keys of epochs that are done, from which others go on."""
        self._paces: defaultdict[str, _Pace] = defaultdict(_Pace)
        self._pace = _Pace()
        """Of all stages of which a time was planned."""
        left = (piece for key, piece in self._model.pieces.items() if key not in self._done)
        self._planned = sum(piece.seconds or 0.0 for piece in left)
        self._first: set[str] = set()
        """The trials with which workers begin. What they take beside their stages is the workers' start: imports, data
        and model come into memory."""
        self._beside: list[float] = []
        """The seconds that other trials took beside their stages, in order."""
        self._last: tuple[float, float | None, float] | None = None

    def note(self, record: TrialRecord) -> None:
        """Take note of a trial's newest record."""
        if record.trial not in self._seen:
            self._begin(record)
        for stage in record.stages:
            self._note_stage(stage)
        self._running.pop(record.trial, None)
        if record.state.ended:
            ran = self._begun.pop(record.trial, None) is not None and record.attempts
            if ran and record.trial not in self._first:
                insort(self._beside, max(0.0, record.seconds - sum(one.spent_seconds for one in record.stages)))
        elif record.trial in self._begun:
            self._note_running(record)

    @property
    def seconds(self) -> float | None:
        """Return how long it still takes; None if that is unknown."""
        now = self._clock()
        if self._last is not None:
            at, left, pause = self._last
            if now - at < pause:
                return None if left is None else max(0.0, left - (now - at))
        began = time.perf_counter()
        left = self._worked_out(now)
        took = time.perf_counter() - began
        self._last = now, left, max(_OFTEN_ENOUGH_SECONDS, took / _SHARE)
        return left

    def _begin(self, record: TrialRecord) -> None:
        """Put a trial in the place of the one that was known under its name, or of a stand-in."""
        self._seen.add(record.trial)
        number, position = divmod(record.number, self._seeds)
        trial, pipeline = self._planner.built(Proposal(number, record.changes, record.label), position)
        self._model.price([(trial, pipeline)])
        if self._known.pop(record.trial, None) is None and self._imagined:
            needed, imagined = self._to_compute(pipeline), self._to_compute(self._imagined.popleft())
            if needed is not None and imagined and _has_just_begun(record):
                self._needed.add(min(needed / imagined, _MOST), 1.0, 0)
        if not record.state.ended and len(self._first) < self._workers:
            self._first.add(record.trial)
        self._begun[record.trial] = pipeline

    def _to_compute(self, pipeline: Pipeline) -> float | None:
        """Return the seconds of a trial's stages that are not done; None if those of one are unknown."""
        return total(self._expected(self._model.pieces[node.key]) for node in pipeline if node.key not in self._done)

    def _note_stage(self, stage: StageRecord) -> None:
        if not stage.complete or stage.key in self._done:
            return
        self._done.add(stage.key)
        piece = self._model.pieces.get(stage.key)
        if piece is None:
            return
        if piece.node.spec.epochs:
            self._walked[stage.key] = None
        if stage.reused:
            return
        part = stage.spent_seconds / stage.seconds if stage.seconds else 1.0  # of one that goes on from an epoch
        planned = (piece.seconds or 0.0) * part
        self._paces[stage.stage].add(stage.spent_seconds, planned, part * piece.weight)
        if planned:
            self._pace.add(stage.spent_seconds, planned, 0)

    def _note_running(self, record: TrialRecord) -> None:
        now, pipeline = self._clock(), self._begun[record.trial]
        last = record.stages[-1] if record.stages else None
        if last is not None and not last.complete:
            self._running[record.trial] = last.key, now - last.spent_seconds
        elif (at := len(record.stages)) < len(pipeline):
            self._running[record.trial] = pipeline[at].key, now

    def _worked_out(self, now: float) -> float | None:
        asked_for = self._walked | _keys_of([*self._begun.values(), *self._known.values()])
        keys, as_imagined = asked_for | _keys_of(self._imagined), self._needed.factor(_AS_IMAGINED)
        since = dict(self._running.values())
        pieces: list[Piece] = []
        for key in keys:
            piece = self._model.pieces[key]
            seconds = self._expected(piece)
            if seconds is None:
                if key not in self._done:
                    return None
                seconds = 0.0
            seconds *= 1.0 if key in asked_for else as_imagined
            elapsed = now - since[key] if key in since and key not in self._done else 0.0
            pieces.append(replace(piece, seconds=seconds - elapsed if elapsed < seconds else _OVERRUN * elapsed))
        waiting = len(self._known) + len(self._imagined) + len(self._begun)
        beside = median(self._beside) * waiting / self._workers if self._beside else 0.0
        return wall_seconds(tasks_of(pieces, self._done), self._workers) + beside

    def _expected(self, piece: Piece) -> float | None:
        """Return what a stage takes, by the plan and by what such stages have taken."""
        pace = self._paces[piece.node.spec.name]
        if piece.seconds is None:
            return pace.seconds / pace.weight * piece.weight if pace.weight else None
        others = self._pace.factor(_OTHERS * self._planned)
        return piece.seconds * pace.factor(_OWN * piece.seconds, others)


def _has_just_begun(record: TrialRecord) -> bool:
    """Tell whether a trial has computed nothing yet: of one that has, what it needed is in the store by now."""
    return not record.state.ended and not any(stage.complete and not stage.reused for stage in record.stages)


def _keys_of(pipelines: Iterable[Pipeline]) -> dict[str, None]:
    return dict.fromkeys(node.key for pipeline in pipelines for node in pipeline)
