from __future__ import annotations

import pytest

from sweeps.backends.watch import ANSWER_SECONDS, PAUSE_SECONDS, SILENT_SECONDS, Watch
from ubt.common.exits import Cause, Exit


class Toy:
    """A Ray that gives these answers, one a look, and a clock that stands but for what they take."""

    def __init__(self, *answers: tuple[float, str | Exception]) -> None:
        self.answers, self.now, self.told = list(answers), 0.0, []

    def look(self) -> str:
        took, answer = self.answers.pop(0)
        self.now += took
        if isinstance(answer, Exception):
            raise answer
        return answer

    def pause(self, seconds: float) -> bool:
        self.now += seconds
        return not self.answers

    def watched(self) -> list[Cause]:
        Watch(self.look, (ConnectionError,), self.pause, lambda: self.now).run(self.told.append)
        return self.told


SILENT = (ANSWER_SECONDS, ConnectionError("no route\nto host"))
REFUSED = (0.0, ConnectionError())
WELL = (0.0, "")


def test_what_is_well_is_not_lost() -> None:
    assert Toy(*[WELL] * 50).watched() == []


def test_what_is_gone_for_good_is_told_once_and_at_once() -> None:
    toy = Toy(WELL, (0.0, "its raylet has ended"), (0.0, "its raylet has ended"))
    assert toy.watched() == [Cause("Ray was lost: its raylet has ended", Exit.FAULT)]
    assert toy.now == 2 * PAUSE_SECONDS


@pytest.mark.parametrize(("silence", "why"), [(SILENT, "no route"), (REFUSED, "ConnectionError")])
def test_silence_counts_as_lost_before_half_a_minute_is_over(silence: tuple[float, Exception], why: str) -> None:
    toy = Toy(WELL, *[silence] * 20)
    (cause,) = toy.watched()
    assert cause.text == f"Ray was lost: it does not answer any more ({why})"
    assert SILENT_SECONDS <= toy.now - PAUSE_SECONDS < 30 - PAUSE_SECONDS


def test_an_answer_in_between_begins_anew() -> None:
    assert Toy(*[SILENT, WELL, SILENT, WELL] * 10).watched() == []


def test_a_process_that_was_stopped_itself_does_not_take_the_time_for_silence() -> None:
    assert Toy((3600.0, ConnectionError()), WELL).watched() == []
