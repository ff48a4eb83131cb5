"""One orderly end, with real signals: within this process, and of processes that are stuck or slow."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from ubt.common.atomic_files import whole_file
from ubt.common.ending import SIGNALS, Ending, current, orderly_end
from ubt.common.exits import Cause, Ended, Exit

PATIENCE_SECONDS = 60


def send(number: int) -> None:
    os.kill(os.getpid(), number)
    time.sleep(0)  # the handler runs between two of Python's steps


@pytest.fixture
def ending() -> Iterator[Ending]:
    before = {number: signal.getsignal(number) for number in (*SIGNALS, signal.SIGALRM)}
    with Ending() as ending:
        yield ending
    assert {number: signal.getsignal(number) for number in before} == before, "they are given back"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGHUP, 129), (signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_with_the_status_of_a_shell_and_says_which_it_was(
    ending: Ending, number: int, status: int
) -> None:
    with pytest.raises(Ended) as ended:
        send(number)
    assert ended.value.cause == ending.cause == Cause(f"interrupted by {signal.Signals(number).name}", status)
    assert status in list(Exit)


def test_what_is_being_written_is_rolled_back(ending: Ending, tmp_path) -> None:
    with pytest.raises(Ended), whole_file(tmp_path / "record.json") as unfinished:
        unfinished.write_text("half")
        send(signal.SIGTERM)
    assert list(tmp_path.iterdir()) == []


def test_a_second_signal_does_not_interrupt_what_rolls_back(ending: Ending) -> None:
    rolled_back = []
    with pytest.raises(Ended):
        try:
            send(signal.SIGTERM)
        finally:
            send(signal.SIGINT)
            rolled_back.append(True)
    assert rolled_back


def test_nothing_is_raised_while_it_is_held_and_all_of_it_afterwards(ending: Ending) -> None:
    done = []
    with pytest.raises(Ended), ending.held():
        send(signal.SIGTERM)
        done.append(True)
    assert done


def test_a_loop_gets_to_its_check_before_anything_is_raised(ending: Ending) -> None:
    steps = []
    with pytest.raises(Ended), ending.patient(PATIENCE_SECONDS):
        ending.check()
        send(signal.SIGTERM)
        steps.append("ends")
        ending.check()
        steps.append("next")
    assert steps == ["ends"]


def test_a_loop_that_does_not_get_there_is_interrupted(ending: Ending) -> None:
    with pytest.raises(Ended), ending.patient(0.05):
        send(signal.SIGTERM)
        time.sleep(PATIENCE_SECONDS)


def test_a_second_signal_is_not_waited_with(ending: Ending, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ubt.common.ending._SAME_SECONDS", -1.0)
    with pytest.raises(Ended), ending.patient(PATIENCE_SECONDS):
        send(signal.SIGTERM)
        send(signal.SIGTERM)
        time.sleep(PATIENCE_SECONDS)


def test_two_signals_at_once_are_one(ending: Ending) -> None:
    with ending.closing():
        send(signal.SIGTERM)
        left = ending.left(PATIENCE_SECONDS)
        send(signal.SIGHUP)
        assert left > 4
        assert left - ending.left(PATIENCE_SECONDS) < 2, "the time is as it was"


def test_the_last_steps_are_done_within_the_time_and_no_longer(ending: Ending) -> None:
    ending.grace_seconds = 1.0
    with ending.closing():
        send(signal.SIGTERM)
        steps = ["first"]
        with suppress(KeyboardInterrupt), ending.step(reserve_seconds=0.9):
            time.sleep(PATIENCE_SECONDS)
        steps.append("last")
        assert ending.left(PATIENCE_SECONDS) < 1
    assert steps == ["first", "last"]


def test_without_a_signal_there_is_all_the_time(ending: Ending) -> None:
    with ending.closing(), ending.step(reserve_seconds=3):
        assert ending.left(60, 3) == 60


def test_what_a_library_swallows_is_raised_again(ending: Ending, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ubt.common.ending._AGAIN_SECONDS", 0.02)
    with pytest.raises(Ended):
        with suppress(KeyboardInterrupt):
            send(signal.SIGTERM)
        time.sleep(PATIENCE_SECONDS)


def test_another_thread_may_ask_for_the_end(ending: Ending) -> None:
    cause = Cause("the head was lost", Exit.FAULT)
    asking = threading.Timer(0.05, lambda: ending.ask(cause))
    asking.start()
    with pytest.raises(Ended) as ended:
        time.sleep(PATIENCE_SECONDS)
    assert ended.value.cause is cause
    asking.join()


def test_outside_the_main_thread_a_loop_ends_at_its_check() -> None:
    met: list[str] = []

    def work() -> None:
        with Ending() as ending:
            ending.ask(Cause("the head was lost", Exit.FAULT))
            met.append("goes on")
            try:
                ending.check()
            except Ended as ended:
                met.append(ended.cause.text)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert met == ["goes on", "the head was lost"]


def test_there_is_one_end_at_a_time(ending: Ending) -> None:
    with orderly_end() as inner:
        assert inner is ending
    assert current() is ending


def test_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Ending() as ending:
            send(signal.SIGHUP)
            assert ending.cause is None
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(("number", "raised"), [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)])
def test_a_program_that_calls_us_ends_by_the_signal_that_it_was_sent(number: int, raised: type[BaseException]) -> None:
    with pytest.raises(raised), orderly_end():
        send(number)


def test_a_program_that_calls_us_ends_though_the_block_was_done(tmp_path) -> None:
    done = []
    with pytest.raises(SystemExit) as ended, orderly_end() as ending, ending.closing():
        send(signal.SIGTERM)
        done.append(True)
    assert done
    assert ended.value.code == 143


STUCK = """
import subprocess, sys, time
from ubt.common.ending import Ending
with Ending(hard=True) as ending:
    ending.grace_seconds, ending.last_words = 0.5, ": go on with ubt"
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    with ending.held():
        print(child.pid, flush=True)
        time.sleep(600)
"""


def test_a_process_that_is_stuck_ends_in_time_with_what_it_has_started() -> None:
    stuck = subprocess.Popen([sys.executable, "-c", STUCK], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert stuck.stdout
    child = int(stuck.stdout.readline())
    os.kill(stuck.pid, signal.SIGTERM)
    _, err = stuck.communicate(timeout=PATIENCE_SECONDS)
    assert (stuck.returncode, err) == (143, "Interrupted by SIGTERM: go on with ubt\n")
    deadline = time.monotonic() + PATIENCE_SECONDS
    while is_alive(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_alive(child)


def is_alive(pid: int) -> bool:
    import psutil

    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


OUT_OF_REACH = """
import signal, threading, time
from ubt.common.ending import Ending
from ubt.common.exits import Cause
with Ending(hard=True) as ending:
    ending.at_worst, ending.last_words = lambda cause: print(cause.text), ": go on with ubt"
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})  # as in a call to C++ that looks at no signal
    threading.Thread(target=ending.ask_or_end, args=(Cause("the head was lost", 3), 0.2)).start()
    time.sleep(600)
"""


def test_where_no_signal_gets_the_thread_that_asks_ends_it() -> None:
    words = [sys.executable, "-u", "-c", OUT_OF_REACH]
    ended = subprocess.run(words, check=False, capture_output=True, text=True, timeout=PATIENCE_SECONDS)
    assert (ended.returncode, ended.stdout) == (3, "the head was lost\n")
    assert ended.stderr == "The head was lost: go on with ubt\n"


def test_a_library_that_is_out_of_reach_tells_and_leaves_the_process_alone() -> None:
    text = OUT_OF_REACH.replace("hard=True", "").replace("time.sleep(600)", "time.sleep(1.5); print('still here')")
    words = [sys.executable, "-u", "-c", text]
    ended = subprocess.run(words, check=False, capture_output=True, text=True, timeout=PATIENCE_SECONDS)
    assert ended.stdout.startswith("the head was lost\nstill here\n")
    assert "The head was lost: go on with ubt\nThe call waits in Ray and may not return" in ended.stderr


FORKED = """
import os, signal, time
from ubt.common.ending import Ending
with Ending(hard=True) as ending:
    child = os.fork()
    if child == 0:
        time.sleep(600)
    os.kill(child, signal.SIGTERM)
    assert os.waitpid(child, 0)[1] == signal.SIGTERM
    assert ending.cause is None
"""


def test_a_forked_process_has_its_signals_to_itself() -> None:
    subprocess.run([sys.executable, "-c", FORKED], check=True, timeout=PATIENCE_SECONDS)
