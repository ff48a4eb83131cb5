import io
import logging
import sys
import time
from threading import Event

import pytest

from ubt.common import progress as module
from ubt.common.progress import SILENCE, Silence, progress, waiting_for


@pytest.fixture
def log(caplog, monkeypatch):
    monkeypatch.setattr(module, "QUIET_SECONDS", 0.0)
    caplog.set_level(logging.INFO)
    return caplog


def test_items_pass_through_unchanged(log):
    assert list(progress(iter("abc"), 3, "letters")) == ["a", "b", "c"]


def test_a_log_gets_a_line_every_tenth(log):
    list(progress(range(1000), 1000, "decoding"))
    assert log.messages[0] == "decoding: 10 % (100 of 1000)"
    assert log.messages[-1] == "decoding: 100 % (1000 of 1000)"
    assert len(log.messages) == 10


def test_what_takes_no_time_is_not_worth_a_line(caplog):
    caplog.set_level(logging.INFO)
    list(progress(range(1000), 1000, "decoding"))
    assert not caplog.messages


def test_nothing_to_do_is_no_error(log):
    assert list(progress([], 0, "nothing")) == []


def test_a_terminal_gets_a_bar_and_no_lines(log, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert list(progress(range(3), 3, "decoding")) == [0, 1, 2]
    assert "decoding" in capsys.readouterr().err
    assert not log.messages


def test_what_is_waited_for_is_said_only_if_it_takes_long() -> None:
    stream, said = io.StringIO(), Event()
    with waiting_for("nothing", stream, every_seconds=3600):
        pass
    assert not stream.getvalue()

    class Noting(io.StringIO):
        def write(self, text: str) -> int:
            said.set()
            return super().write(text)

    noting = Noting()
    with waiting_for("Ray to start", noting, every_seconds=0.001):
        assert said.wait(60)
    assert noting.getvalue().startswith("waiting for Ray to start since")


def test_waits_that_follow_one_another_are_silent_as_long_as_one() -> None:
    now = [0.0]
    silence = Silence(lambda: now[0])
    for begins, ends in ((10.0, 18.0), (24.0, 32.0)):  # from the start of the process on
        now[0] = begins
        assert silence.begin() == begins
        now[0] = ends
        silence.over()
    now[0] = 33.0
    silence.said()
    now[0] = 40.0
    assert silence.begin() == silence.seconds == 7.0
    silence.over()
    now[0] = 60.0  # something else was done for long
    assert silence.begin() == 0.0


def test_a_wait_is_said_sooner_if_the_one_before_it_was_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    stream, said = io.StringIO(), Event()
    monkeypatch.setattr(SILENCE, "begin", lambda: 29.9)
    monkeypatch.setattr(SILENCE, "_since", time.monotonic() - 29.9)
    monkeypatch.setattr(stream, "flush", said.set)
    with waiting_for("the nodes", stream):
        assert said.wait(20)
    assert stream.getvalue() == "waiting for the nodes since 1.0 s\n"
    assert SILENCE.seconds < 29
