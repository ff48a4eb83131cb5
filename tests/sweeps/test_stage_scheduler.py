"""The scheduler by itself, and under a simulator: random studies on 1 to 64 workers with a virtual clock.

**How long workers can stand idle.** Notation: m workers; W, all that was computed (in vain too, where trials
failed); C, when the last trial z ended. While a worker is idle and z waits, some running trial b holds a piece
of z's, or z would have started; while z runs, it computes its own pieces. Nobody computes a piece twice, so

- if trials share beginnings only (whatever b does before a shared piece is also work of z's), every idle moment
  is spent on a piece of z's. Hence Graham's bound for list scheduling: m·C ≤ W + (m − 1)·L, with L the work
  spent on z's pieces, at most the longest pipeline. That a trial holds *all* it is to compute from its start,
  also what comes late, costs nothing here.
- if they share more than beginnings (`score` does not depend on `implant`, but comes after it), b may first
  compute pieces that z has no use for. Then m·C ≤ W + (m − 1)·(L + F), with F that foreign work: of each b, what
  it computes before the last piece that it holds of z's. Each b holds at least one of z's pieces and never blocks
  z again, so F is at most (number of z's pieces) × (longest pipeline).
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stage_scheduler_simulator import Pieces, Simulation

from sweeps.scheduling.stage_scheduler import StageScheduler

STUDY = settings(max_examples=150, deadline=None)


@st.composite
def studies(draw: st.DrawFn, beginnings_only: bool) -> list[Pieces]:
    """Trials that differ in some stages' settings; a piece is named by all that its result depends on."""
    stages = draw(st.integers(1, 5))
    needs = [
        set(range(stage)) if beginnings_only else draw(st.sets(st.integers(0, max(0, stage - 1)), max_size=stage))
        for stage in range(stages)
    ]
    chains = draw(st.sets(st.integers(0, stages - 1), max_size=2))
    knobs = st.tuples(*(st.integers(1, 3) for _ in range(stages)))
    trials = draw(st.lists(knobs, min_size=1, max_size=14))
    return [_pieces(knobs, needs, chains) for knobs in trials]


def _pieces(knobs: Sequence[int], needs: Sequence[set[int]], chains: set[int]) -> Pieces:
    names: list[str] = []
    pieces: list[str] = []
    for stage, knob in enumerate(knobs):
        inputs = ",".join(names[need] for need in sorted(needs[stage]))
        # The knob of a chain counts its epochs, each of them a piece that trials with more epochs share.
        values = range(1, knob + 1) if stage in chains else [knob]
        pieces += [f"{stage}:{value}({inputs})" for value in values]
        names.append(pieces[-1])
    return tuple(pieces)


@st.composite
def simulations(draw: st.DrawFn, beginnings_only: bool = False) -> Simulation:
    trials = draw(studies(beginnings_only))
    pieces = sorted({piece for trial in trials for piece in trial})
    seconds = draw(st.lists(st.integers(0, 9), min_size=len(pieces), max_size=len(pieces)))
    failing = draw(st.sets(st.integers(0, len(trials) - 1), max_size=3))
    fails_at = {trial: draw(st.sampled_from(trials[trial])) for trial in sorted(failing)}
    workers = draw(st.integers(1, 4) | st.integers(5, 64))
    return Simulation(trials, dict(zip(pieces, seconds, strict=True)), workers, fails_at)


@STUDY
@given(simulations())
def test_every_trial_ends_and_the_simulator_s_checks_hold(simulation: Simulation) -> None:
    """The checks: nobody computes a piece twice or at the same time, and none waits that could start."""
    simulation.run()
    assert sorted(simulation.ended) == list(range(len(simulation.trials)))


@STUDY
@given(simulations())
def test_a_piece_is_computed_again_only_after_a_failure_before_it_was_published(simulation: Simulation) -> None:
    simulation.run()
    for piece in simulation.seconds:
        attempts = [span for span in simulation.spans if span.piece == piece]
        assert [span.published for span in attempts[:-1]] == [False] * (len(attempts) - 1)
        assert all(simulation.fails_at[span.trial] == piece for span in attempts[:-1])


@STUDY
@given(simulations(beginnings_only=True))
def test_where_trials_share_beginnings_graham_s_bound_holds(simulation: Simulation) -> None:
    simulation.run()
    longest = simulation.spent_on(simulation.trials[simulation.last])
    workers = simulation.workers
    assert workers * simulation.makespan <= simulation.work + (workers - 1) * longest


@STUDY
@given(simulations())
def test_elsewhere_idle_time_is_bounded_by_foreign_work_too(simulation: Simulation) -> None:
    simulation.run()
    longest = simulation.spent_on(simulation.trials[simulation.last])
    workers, foreign = simulation.workers, simulation.foreign(simulation.last)
    assert workers * simulation.makespan <= simulation.work + (workers - 1) * (longest + foreign)


def test_work_that_is_shared_behind_foreign_work_keeps_trials_from_running_side_by_side() -> None:
    """The price of the simple rule, in the smallest case: z waits for b's own piece, 10, before the shared one."""
    trials = [("base", "own b", "shared"), ("base", "own z", "shared")]
    simulation = Simulation(trials, {"base": 1, "own b": 10, "own z": 10, "shared": 1}, workers=2).run()
    assert simulation.makespan == 1 + 10 + 1 + 10
    assert simulation.foreign(1) == 10


def test_a_thousand_trials_of_a_grid_compute_each_piece_once() -> None:
    trials = [(f"a{i // 100}", f"a{i // 100} b{i // 10}", f"c{i}") for i in range(1000)]
    seconds = {piece: 1 + len(piece) % 3 for trial in trials for piece in trial}
    simulation = Simulation(trials, seconds, workers=16).run()
    assert len(simulation.spans) == len(seconds) == 1110


@settings(max_examples=100, deadline=None)
@given(studies(beginnings_only=False), st.randoms(use_true_random=False))
def test_whoever_starts_does_the_work_that_most_others_wait_for(trials: list[Pieces], chance: Random) -> None:
    """Against the rule written down plainly, with trials that come, start, and end in any order."""
    scheduler: StageScheduler[int] = StageScheduler()
    waiting: list[int] = []
    running: dict[int, set[str]] = {}
    done: set[str] = set()
    coming = list(range(len(trials)))

    def lacking(trial: int) -> set[str]:
        return set(trials[trial]) - done

    def wanted(trial: int) -> int:
        return sum(len(lacking(trial) & lacking(other)) for other in waiting if other != trial)

    while coming or waiting or running:
        if coming and chance.random() < 0.7:
            scheduler.add(coming[0], trials[coming[0]])
            waiting.append(coming.pop(0))
        free = [trial for trial in waiting if not any(lacking(trial) & held for held in running.values())]
        expected = max(free, key=lambda trial: (wanted(trial), -trial), default=None)
        assert scheduler.start() == expected
        if expected is not None:
            running[expected] = lacking(expected)
            waiting.remove(expected)
        if running and chance.random() < 0.7:
            trial = chance.choice(sorted(running))
            if running[trial] and chance.random() < 0.5:
                piece = next(piece for piece in trials[trial] if piece in running[trial])
                running[trial].remove(piece)
                done.add(piece)
                scheduler.finished(trial, piece)
            else:
                del running[trial]
                scheduler.ended(trial)


def test_among_equals_the_first_comes_first() -> None:
    scheduler: StageScheduler[str] = StageScheduler()
    for trial in ("z", "a", "m"):
        scheduler.add(trial, ["pretrain", trial])
    assert scheduler.start() == "z"


def test_a_trial_without_work_left_starts_at_once() -> None:
    scheduler = StageScheduler(done=["pretrain"])
    scheduler.add("slow", ["implant"])
    scheduler.add("again", ["pretrain"])
    assert {scheduler.start(), scheduler.start()} == {"slow", "again"}


def test_a_piece_that_is_finished_frees_those_who_need_it_while_its_trial_runs_on() -> None:
    scheduler: StageScheduler[str] = StageScheduler()
    scheduler.add("first", ["pretrain", "own"])
    scheduler.add("second", ["pretrain", "other"])
    assert scheduler.start() == "first"
    assert scheduler.start() is None
    scheduler.finished("first", "pretrain")
    assert scheduler.start() == "second"
    assert (scheduler.waiting, scheduler.running) == (0, 2)


def test_what_a_failed_trial_did_not_do_is_done_by_the_next() -> None:
    scheduler: StageScheduler[str] = StageScheduler()
    scheduler.add("first", ["pretrain", "implant"])
    scheduler.add("second", ["pretrain", "implant"])
    scheduler.start()
    scheduler.finished("first", "pretrain")
    assert scheduler.start() is None
    scheduler.ended("first")
    assert scheduler.start() == "second"


def test_a_trial_blocked_twice_waits_for_both() -> None:
    scheduler: StageScheduler[str] = StageScheduler()
    scheduler.add("a", ["left"])
    scheduler.add("b", ["right"])
    assert {scheduler.start(), scheduler.start()} == {"a", "b"}
    scheduler.add("both", ["left", "right"])
    assert scheduler.start() is None
    scheduler.finished("a", "left")
    assert scheduler.start() is None
    scheduler.finished("b", "right")
    assert scheduler.start() == "both"


def test_work_named_twice_counts_once() -> None:
    scheduler: StageScheduler[str] = StageScheduler()
    scheduler.add("first", ["pretrain", "pretrain"])
    scheduler.add("second", ["pretrain"])
    scheduler.start()
    scheduler.finished("first", "pretrain")
    assert scheduler.start() == "second"


def test_a_withdrawn_trial_neither_starts_nor_counts() -> None:
    scheduler: StageScheduler[str] = StageScheduler()
    scheduler.add("first", ["its own"])
    scheduler.add("second", ["shared"])
    scheduler.add("gone", ["shared"])
    scheduler.withdraw("gone")
    assert scheduler.start() == "first", "with the one that is gone, the second would unblock more"
    assert scheduler.start() == "second"
    assert scheduler.start() is None
    assert scheduler.waiting == 0


@pytest.mark.parametrize("start_first", [False, True], ids=["waiting", "running"])
def test_a_trial_that_is_there_already_is_refused(start_first: bool) -> None:
    scheduler: StageScheduler[str] = StageScheduler()
    scheduler.add("twin", ["pretrain"])
    if start_first:
        scheduler.start()
    with pytest.raises(ValueError, match="twin"):
        scheduler.add("twin", ["pretrain"])


def test_a_trial_that_failed_may_be_tried_again() -> None:
    scheduler: StageScheduler[str] = StageScheduler()
    for _ in range(2):
        scheduler.add("once more", ["pretrain"])
        assert scheduler.start() == "once more"
        scheduler.ended("once more")
    assert scheduler.running == 0
