from __future__ import annotations

import io
from collections.abc import Iterable
from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from toy_session import rates

from analysis.findings import choose
from analysis.points.candidates import candidates
from analysis.points.configurations import configurations
from sweeps.run.progress import Bar, Lines, Tally, at, progress_view
from sweeps.scheduling.leaderboard import Best
from ubt.trials.labels import TrialLabel
from ubt.trials.rates import Rates
from ubt.trials.record import EpochRecord, StageRecord, State, TrialRecord


def trial(number: int, state: State = State.DONE, asr: float = 0.1, ca: float = 0.8, **fields: Any) -> TrialRecord:
    done = state is State.DONE
    described = {
        "study": "toy",
        "trial": f"t{number:04d}",
        "number": number,
        "seed": 0,
        "config": {"defense": {"overfit_epochs": number}},
        "changes": {"defense.overfit_epochs": number} if number else {},
        "state": state,
        "poisoned_val": rates(0.9, 0.8),
        "val": rates(asr, ca) if done else None,
    }
    return TrialRecord.model_validate({**described, **fields})


def resumed(record: TrialRecord) -> TrialRecord:
    stages = (record.stages[-1].model_copy(update={"resumed": "3 of 5"}),)
    return record.model_copy(update={"stages": stages})


def running(number: int, epochs: int | None = None, stage: str = "overfit") -> TrialRecord:
    curve = tuple(EpochRecord(epoch=epoch + 1, seconds=1) for epoch in range(epochs or 0))
    stages = [StageRecord(stage=stage, key="k", reused=False, seconds=1, complete=False, epochs=curve)]
    return trial(number, State.RUNNING, stages=stages if epochs is not None else [])


def judged(
    number: int, curve: list[tuple[float, float]], stopped: bool = False, seed: int = 0, configuration: int = 0
) -> TrialRecord:
    """Return a trial of three epochs of unlearning, or of as many as it came to."""
    epochs = tuple(EpochRecord(epoch=at, seconds=1, val=rates(*one)) for at, one in enumerate(curve, 1))
    stage = StageRecord(stage="unlearn", key="k", reused=False, seconds=1, complete=not stopped, epochs=epochs)
    state = State.PRUNED if stopped else State.DONE
    config = {"defense": {"overfit_epochs": configuration, "unlearn_epochs": 9 if stopped else len(curve)}}
    return trial(number, state, *curve[-1], stages=(stage,), seed=seed, config=config)


class Told:
    """Says that so much is left."""

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds

    def note(self, record: TrialRecord) -> None:
        pass


def tally(records: Iterable[TrialRecord] = (), total: int = 4, left: float | None = None) -> Tally:
    counted = Tally(total, 0.02, time_left=Told(left))
    for record in records:
        counted.note(record)
    return counted


def best_of(*records: TrialRecord) -> str | None:
    best = tally(records).best
    return best and best.trial


RATE = st.integers(14, 20).map(lambda twentieth: twentieth / 20)


class TestTally:
    def test_counts_each_trial_once_by_its_newest_record(self) -> None:
        counted = tally([running(0), running(1), trial(0), running(1, 2), trial(2, State.FAILED)])
        assert [counted.count(state) for state in State] == [1, 1, 0, 1, 0]
        assert counted.ended == 2

    def test_has_no_best_before_any_is_done(self) -> None:
        assert tally([running(0), trial(1, State.FAILED)]).best is None

    def test_the_best_has_the_lowest_asr_of_those_that_keep_clean_accuracy(self) -> None:
        lost = trial(3, asr=0.0, ca=0.7799)
        counted = tally([trial(0, asr=0.3), trial(1, asr=0.1, ca=0.78), trial(2, asr=0.2), lost])
        assert counted.best == Best("t0001", 0.1, 0.78, 1)

    def test_among_equal_asr_the_higher_ca_is_better(self) -> None:
        assert best_of(trial(0, ca=0.8), trial(1, ca=0.82), trial(2, ca=0.81)) == "t0001"

    def test_the_best_has_the_lowest_mean_over_its_seeds(self) -> None:
        lucky = [trial(0, asr=0.0), trial(1, asr=0.6, seed=1, config=trial(0).config)]
        assert best_of(lucky[0], trial(2, asr=0.2)) == "t0000"
        counted = tally([lucky[0], trial(2, asr=0.2), lucky[1]])
        assert counted.best == Best("t0002", 0.2, 0.8, 1)
        assert tally(lucky).best == Best("t0000", 0.3, 0.8, 2)
        assert "best ASR 0.300 at CA 0.800 (t0000, mean of 2 seeds)" in tally(lucky).line()

    @given(st.lists(st.tuples(RATE, RATE, st.integers(0, 3), st.integers(0, 2)), max_size=8))
    @settings(max_examples=40)
    def test_at_any_time_the_best_is_the_reports_choice(self, told: list[tuple[float, float, int, int]]) -> None:
        counted, records = tally(), []
        for number, (asr, ca, configuration, seed) in enumerate(told):
            config = {"defense": {"overfit_epochs": configuration}}
            records.append(trial(number, asr=asr, ca=ca, seed=seed, config=config))
            counted.note(records[-1])
            chosen = choose(configurations(records), 0.02)
            assert (counted.best and counted.best.trial) == (chosen and chosen.name)

    @given(st.lists(st.tuples(st.lists(st.tuples(RATE, RATE), min_size=1, max_size=3), st.booleans()), max_size=6))
    @settings(max_examples=40)
    def test_where_every_epoch_counts_the_best_is_the_reports_choice_of_them(
        self, told: list[tuple[list[tuple[float, float]], bool]]
    ) -> None:
        counted, records = Tally(4, 0.02, every_epoch=True), []
        for number, (curve, stopped) in enumerate(told):
            records.append(judged(number, curve, stopped, seed=number % 2, configuration=number // 2))
            counted.note(records[-1])
            chosen, best = choose(candidates(configurations(records)), 0.02), counted.best
            assert (best is None) == (chosen is None)
            if best and chosen and chosen.val:
                at = (chosen.val.asr.mean, chosen.val.ca.mean, len(chosen.measured)) if chosen.val.asr else None
                assert (best.asr, best.ca, best.seeds) == pytest.approx(at)

    def test_an_earlier_epoch_is_named(self) -> None:
        counted = Tally(1, 0.02, every_epoch=True)
        counted.note(judged(0, [(0.1, 0.8), (0.4, 0.8)]))
        assert counted.best == Best("t0000", 0.1, 0.8, 1, epoch=1)
        assert "best ASR 0.100 at CA 0.800 (t0000 after epoch 1)" in counted.line()

    def test_what_was_stopped_early_counts_by_its_epochs(self) -> None:
        counted = Tally(1, 0.02, every_epoch=True)
        counted.note(judged(0, [(0.1, 0.8)], stopped=True))
        assert counted.best == Best("t0000", 0.1, 0.8, 1, epoch=1)

    def test_an_epoch_that_was_judged_in_part_waits_for_its_trial(self) -> None:
        counted, record = Tally(1, 0.02, every_epoch=True), judged(0, [(0.1, 0.8), (0.4, 0.8)])
        epochs = record.stages[0].epochs
        part = epochs[0].model_copy(update={"val": epochs[0].val and epochs[0].val.model_copy(update={"subset": "a"})})
        stage = record.stages[0].model_copy(update={"epochs": (part, epochs[1])})
        counted.note(record.model_copy(update={"stages": (stage,)}))
        assert counted.best == Best("t0000", 0.4, 0.8, 1)

    def test_what_leaves_a_component_out_is_never_the_best(self) -> None:
        ablated = trial(1, asr=0.0).model_copy(update={"label": TrialLabel(component="no-overfit")})
        base = trial(0, asr=0.2).model_copy(update={"label": TrialLabel(component="base")})
        assert best_of(base, ablated) == "t0000"

    def test_a_trial_that_is_run_again_is_no_longer_the_best(self) -> None:
        assert best_of(trial(0, asr=0.1), trial(1, asr=0.2), running(0)) == "t0001"
        assert best_of(trial(0, asr=0.1), running(0)) is None

    @pytest.mark.parametrize("missing", ["val", "poisoned_val"])
    def test_what_was_not_measured_is_not_best(self, missing: str) -> None:
        assert tally([trial(0, **{missing: None})]).best is None

    def test_nothing_is_left_at_the_end(self) -> None:
        assert "left" not in tally([trial(number) for number in range(4)], left=0).line()

    def test_what_is_unknown_is_not_said(self) -> None:
        assert "left" not in tally([trial(0)]).line()
        assert "left" not in Tally(4, 0.02).line()

    def test_a_line_says_it_all(self) -> None:
        counted = tally([trial(0, asr=0.25), trial(1, State.FAILED), running(2)], total=5, left=120)
        assert counted.line() == (
            "1 done, 1 running, 1 failed · best ASR 0.250 at CA 0.800 (t0000) · about 2 min 00 s left"
        )


class TestLines:
    def lines(self, *records: TrialRecord, every: float = 1) -> list[str]:
        """Return what is written of records that come so many seconds apart."""
        stream, times = io.StringIO(), count(step=every)
        with Lines(tally(), stream, clock=lambda: next(times)) as view:
            for record in records:
                view.updated(record)
        return stream.getvalue().splitlines()

    def test_there_is_one_for_each_trial_that_ends(self) -> None:
        first, second = self.lines(running(0), running(0, 1), trial(0), running(1), trial(1, asr=0.05))
        assert first.startswith("[3.0 s] 1/4 t0000 ASR 0.100 CA 0.800 (base) | 1 done, 0 running")
        assert second.startswith("[5.0 s] 2/4 t0001 ASR 0.050 CA 0.800 (overfit_epochs=1)")

    def test_what_runs_is_named_once_the_stage_before_it_has_ended(self) -> None:
        ended = running(0, epochs=3)
        assert at(ended) == "overfit epoch 3"
        assert at(ended.model_copy(update={"at": "overfit"})) == "overfit epoch 3"
        assert at(ended.model_copy(update={"at": "unlearn"})) == "unlearn"
        assert at(running(0).model_copy(update={"at": "load"})) == "load"
        assert at(running(0)) == "is starting"

    def test_a_failure_has_its_reason_in_one_line(self) -> None:
        (line,) = self.lines(trial(0, State.FAILED, reason="loss is NaN\nat epoch 3"))
        assert "t0000 FAILED: loss is NaN |" in line

    def test_a_trial_that_is_stopped_early_has_its_reason_and_is_counted_by_itself(self) -> None:
        (line,) = self.lines(trial(0, State.PRUNED, reason="after epoch 2 of `unlearn` …"))
        assert "t0000 PRUNED: after epoch 2 of `unlearn` … | 0 done, 0 running, 0 failed, 1 stopped early" in line

    def test_a_failure_without_a_reason_is_a_line_too(self) -> None:
        (line,) = self.lines(trial(0, State.FAILED))
        assert "t0000 FAILED: for no known reason" in line

    @pytest.mark.parametrize(
        ("record", "doing"),
        [
            (running(0), "t0000 is starting"),
            (running(0, 0, "suspect"), "t0000 suspect"),
            (running(0, 3), "t0000 overfit epoch 3"),
            (resumed(running(0, 2)), "t0000 overfit epoch 2, resumed at epoch 3 of 5"),
        ],
    )
    def test_a_long_silence_is_broken_by_what_a_trial_is_at(self, record: TrialRecord, doing: str) -> None:
        (line,) = self.lines(record, every=11)
        assert line.startswith(f"[11 s] 0/4 {doing} | 0 done, 1 running, 0 failed")
        assert not self.lines(record, every=9)

    def test_a_silence_is_broken_by_what_is_waited_for_also_when_nothing_happens(self) -> None:
        stream, now = io.StringIO(), [0.0]
        view = Lines(tally(), stream, clock=lambda: now[0])
        for now[0] in (29.0, 31.0, 40.0):
            view.tick()
        view.updated(running(0, 2))
        for now[0] in (45.0, 75.0):
            view.tick()
        view.updated(trial(0))
        now[0] = 200.0
        view.tick()
        lines = [line.partition(" | ")[0] for line in stream.getvalue().splitlines()]
        assert lines == [
            "[31 s] 0/4 waiting for workers to start",
            "[1 min 15 s] 0/4 waiting for t0000 overfit epoch 2 for 35 s",
            "[1 min 15 s] 1/4 t0000 ASR 0.100 CA 0.800 (base)",
            "[3 min 20 s] 1/4 waiting for workers to start",
        ]

    def test_a_silence_that_began_before_the_trials_counts(self) -> None:
        stream, now = io.StringIO(), [0.0]
        view = Lines(tally(), stream, clock=lambda: now[0], silent_seconds=25.0)
        for now[0] in (4.0, 6.0, 31.0, 37.0):
            view.tick()
        assert [line.partition(" | ")[0] for line in stream.getvalue().splitlines()] == [
            "[6.0 s] 0/4 waiting for workers to start",
            "[37 s] 0/4 waiting for workers to start",
        ]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class TestBar:
    def screen(self, *records: TrialRecord, known: Iterable[TrialRecord] = ()) -> str:
        terminal = Terminal()
        console = Console(file=terminal, force_terminal=True, width=160, color_system=None)
        with Bar(tally(), console) as view:
            for record in known:
                view.answered(record)
            for record in records:
                view.updated(record)
        return terminal.getvalue()

    def test_shows_how_many_have_ended_and_the_best(self) -> None:
        screen = self.screen(running(0), trial(0), running(1, 2))
        assert "1/4" in screen
        assert "best ASR 0.100 at CA 0.800 (t0000)" in screen
        assert "t0001 overfit epoch 2" in screen

    def test_begins_with_what_is_known(self) -> None:
        assert "2/4" in self.screen(known=[trial(0), trial(1)])

    @pytest.mark.parametrize("reason", ["KeyError: [/red]", "shape [3, 4] is wrong", "[bold]", ""])
    def test_shows_a_failure_whatever_its_reason_holds(self, reason: str) -> None:
        assert f"t0000 FAILED: {reason}" in self.screen(trial(0, State.FAILED, reason=reason))


def test_a_terminal_gets_a_bar_and_a_log_gets_lines() -> None:
    assert isinstance(progress_view(tally(), Terminal()), Bar)
    assert isinstance(progress_view(tally(), io.StringIO()), Lines)


def test_by_default_progress_goes_to_what_is_stderr_now(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_view(tally()) as view:
        view.updated(trial(0))
    captured = capsys.readouterr()
    assert "t0000" in captured.err
    assert not captured.out


def unattacked(number: int, **fields: Any) -> TrialRecord:
    """Return a trial whose attack is not known."""
    rates = Rates(ca=0.8, ca_images=100, ca_low=0.7, ca_high=0.9)
    return trial(number, val=rates, poisoned_val=rates, **fields)


def test_without_a_known_attack_there_is_no_best_and_the_line_says_what_is_known() -> None:
    counted = tally([unattacked(0), unattacked(1)])
    assert counted.best is None
    assert tally([unattacked(0), trial(1)]).best == tally([trial(1)]).best
    stream = io.StringIO()
    with progress_view(tally(), stream) as lines:
        lines.updated(unattacked(0))
    assert "ASR – CA 0.800" in stream.getvalue()
