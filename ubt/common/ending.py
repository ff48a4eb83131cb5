"""One orderly end of a command: a signal is noted at once, answered where that is safe, and always in time.

`Ended` is raised in the main thread, so that every `finally` on the way out rolls back what is being written. Where
that would do harm (while Ray starts, say) it waits; a thread ends the process if all of it takes too long.
"""

from __future__ import annotations

import math
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn, Self

from ubt.common.exits import Cause, Ended, Exit

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

GRACE_SECONDS = 8.0
"""From a signal to the end of the process: `docker stop` allows ten."""
HURRY_SECONDS = 2.0
"""From a second signal to the end."""

_SAME_SECONDS = 0.3
"""Signals this close are one: a terminal, Slurm and systemd may each send one to every process of a job."""
_EXIT_SECONDS = 0.4
"""Of the time, what ending the process itself takes on a busy machine."""
_AGAIN_SECONDS = 1.0
"""What a library has swallowed is raised again after this time."""


class Ending:
    """Turns signals, or what another thread asks for, into one `Ended` in the main thread.

    Within `with`, and in the main thread, signals are ours; those that are ignored (`nohup`) stay ignored.
    """

    def __init__(self, hard: bool = False) -> None:
        """Prepare; `hard` lets the process be ended when the time is over, as a command may and a library may not."""
        self.cause: Cause | None = None
        """Why the command ends; None while nothing has happened."""
        self.grace_seconds = GRACE_SECONDS
        self.last_words = ""
        """How it goes on, for when the process has to be ended, or ends before its command has told."""
        self.at_worst: Callable[[Cause], None] = lambda cause: None
        """What another thread does for the main one if that is stuck."""
        self.told = False
        """The command has told how it ended."""
        self._hard, self._hurried, self._held = hard, False, 0
        self._asked: Cause | None = None
        self._noted = self._latest = 0.0
        self._deadline = math.inf
        self._when: Callable[[], float] = lambda: 0.0
        self._before: dict[int, Any] = {}
        self._doorbell = (-1, -1)
        self._outer: Ending | None = None

    def __enter__(self) -> Self:
        global _active
        self._outer, _active = _active, self
        if threading.current_thread() is threading.main_thread():
            heard = [n for n in SIGNALS if signal.getsignal(n) not in (signal.SIG_IGN, None)]
            self._before = {number: signal.getsignal(number) for number in (*heard, signal.SIGALRM)}
            if self._hard:
                self._watch()
            for number in self._before:
                signal.signal(number, self._look if number == signal.SIGALRM else self._note)
        return self

    def __exit__(self, *error: object) -> None:
        global _active  # noqa: PLW0603 — as above
        _active = self._outer
        if self._before:
            signal.setitimer(signal.ITIMER_REAL, 0)
        if self._hard and self.cause is not None:
            return  # the process ends; a signal more must not take its status, and the time goes on
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._doorbell[1] >= 0:
            signal.set_wakeup_fd(-1)
            os.close(self._doorbell[1])  # which ends the thread
        self._before, self._doorbell = {}, (-1, -1)

    def ask(self, cause: Cause) -> None:
        """Let the command end, from any thread."""
        self._asked = self._asked or cause
        if self._before:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGALRM)

    def ask_or_end(self, cause: Cause, within_seconds: float) -> None:
        """Let the command end, from another thread; end it here if the main thread is stuck where no signal gets.

        A library must not end the process: it does what is left to do, and says that the call does not return.
        """
        self.ask(cause)
        limit = time.monotonic() + within_seconds
        while self.cause is None and time.monotonic() < limit:
            time.sleep(0.1)
        if self.cause is not None:
            return
        try:
            self.at_worst(cause)
        finally:
            if self._hard:
                self._end_now(cause)
            os.write(
                2, f"{self.farewell(cause)}\nThe call waits in Ray and may not return: end this process.\n".encode()
            )

    def farewell(self, cause: Cause) -> str:
        """Return why it ended and how it goes on."""
        return f"{cause.text[:1].upper()}{cause.text[1:]}{self.last_words}"

    def check(self) -> None:
        """Raise `Ended` if the command is to end: for loops, at a point where that is safe."""
        self._begin_if_asked()
        if self.cause is not None and not self._held:
            raise Ended(self.cause)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Raise nothing within; what has happened meanwhile is raised at the end."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
            self._look()

    @property
    def seconds_for_work(self) -> float:
        """Return how long work that is under way may go on; 0 without a signal, or without time to spare."""
        return max(0.0, self._noted + self._extra_seconds - time.monotonic()) if self.cause else 0.0

    @property
    def _extra_seconds(self) -> float:
        """What there is of time beyond that which an end needs."""
        return 0.0 if self._hurried or math.isinf(self._deadline) else max(0.0, self.grace_seconds - GRACE_SECONDS)

    def patient(self, seconds: float) -> AbstractContextManager[None]:
        """Raise nothing within for a while after a first signal, so that a loop gets to its `check`."""
        return self._raising(lambda: self._noted + (0.0 if self._hurried else seconds + self._extra_seconds))

    def closing(self) -> AbstractContextManager[None]:
        """Raise nothing within: what is left to do is done, step by step."""
        return self._raising(lambda: math.inf)

    def step(self, reserve_seconds: float = 0.0) -> AbstractContextManager[None]:
        """Raise within when the time is over, but for a reserve for later steps."""
        return self._raising(lambda: self._deadline - reserve_seconds)

    def left(self, at_most: float, reserve_seconds: float = 0.0) -> float:
        """Return the seconds that a step may take."""
        return max(0.0, min(at_most, self._deadline - reserve_seconds - time.monotonic()))

    @contextmanager
    def _raising(self, when: Callable[[], float]) -> Iterator[None]:
        before, self._when = self._when, when
        try:
            self._look()
            yield
        finally:
            self._when = before

    def _note(self, number: int, frame: FrameType | None) -> None:
        """Take a signal."""
        now = time.monotonic()
        if self.cause is None:
            self.cause, self._noted, self._deadline = Cause.of_signal(number), now, now + self.grace_seconds
        elif math.isinf(self._deadline):
            self._deadline = now + self.grace_seconds
        elif now - self._latest > _SAME_SECONDS:
            self._hurried, self._deadline = True, min(self._deadline, now + HURRY_SECONDS)
        self._latest = now
        self._look()

    def _begin_if_asked(self) -> None:
        if self.cause is None and self._asked is not None:
            self.cause, self._noted = self._asked, time.monotonic()

    def _look(self, *_: object) -> None:
        """Raise `Ended` if it is time for it, or see to it that somebody looks again then."""
        self._begin_if_asked()
        if self.cause is None or self._held or _unwinding():
            return
        wait = self._when() - time.monotonic()
        if self._before and wait < math.inf:
            signal.setitimer(signal.ITIMER_REAL, wait if wait > 0 else _AGAIN_SECONDS)
        if wait <= 0:
            raise Ended(self.cause)

    def _watch(self) -> None:
        """Start the thread that ends the process when the time is over, even if the main thread is stuck somewhere."""
        self._doorbell = os.pipe()
        for end in self._doorbell:
            os.set_blocking(end, False)
        signal.set_wakeup_fd(self._doorbell[1], warn_on_full_buffer=False)
        threading.Thread(target=self._end_in_time, args=(self._doorbell[0],), name="ubt-ending", daemon=True).start()

    def _end_in_time(self, doorbell: int) -> None:
        first, latest, deadline = 0, 0.0, math.inf
        while True:
            wait = None if math.isinf(deadline) else max(0.0, deadline - time.monotonic())
            if not select.select([doorbell], [], [], wait)[0]:
                self._end_now(Cause.of_signal(first))
            rung = os.read(doorbell, 1)
            if not rung:
                return os.close(doorbell)
            number, now = rung[0], time.monotonic()
            if number not in SIGNALS:
                continue
            if not first:
                first, deadline = number, now + self.grace_seconds - _EXIT_SECONDS
            elif now - latest > _SAME_SECONDS:
                deadline = min(deadline, now + HURRY_SECONDS - _EXIT_SECONDS)
            latest = now

    def _end_now(self, cause: Cause) -> NoReturn:
        import psutil  # noqa: PLC0415 — for the worst case alone

        for child in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                child.kill()
        os.write(2, f"{self.farewell(cause)}\n".encode())
        os._exit(cause.status)


_active: Ending | None = None


def is_watched() -> bool:
    """Tell whether an end is being watched for."""
    return _active is not None


def current() -> Ending:
    """Return the end that is being watched for; one that never comes if there is none."""
    return _active or Ending()


def _unwinding() -> bool:
    """Tell whether `Ended` is on its way out: what rolls back must not be interrupted by another one."""
    error = sys.exc_info()[1]
    while error is not None:
        if isinstance(error, Ended):
            return True
        error = error.__context__
    return False


@contextmanager
def orderly_end() -> Iterator[Ending]:
    """Yield the end that is being watched for, or watch for one: a program that is not ours then ends by its signal.

    Raises:
        SystemExit: if it was SIGTERM or SIGHUP; what is in the block has been done until then.
    """
    if _active is not None:
        yield _active
        return
    with Ending() as ending:
        try:
            yield ending
        except Ended as ended:
            if ended.cause.status == Exit.INTERRUPTED:
                raise
        if ending.cause is not None and ending.cause.status in {Exit.HANGUP, Exit.TERMINATED}:
            raise SystemExit(ending.cause.status)


_masks: list[set[signal.Signals | int]] = []


def _before_fork() -> None:
    """Let signals wait: one that a new process got before it is by itself would ring our doorbell."""
    _masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS))


def _after_fork() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _masks.pop())


def _after_fork_in_child() -> None:
    """Leave signals of a forked process to itself."""
    if _active is not None and _active._before:
        signal.set_wakeup_fd(-1)
        for number in _active._before:
            signal.signal(number, signal.SIG_DFL)
    _after_fork()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child)
