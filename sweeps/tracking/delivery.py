"""Delivery to MLflow: a thread that carries over what differs from the run folder, with patience."""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from sweeps.tracking.contents import STUDY, Content, RunContents
from sweeps.tracking.faults import BrokenDatabaseError, RefusedError, TrackingFault, fault_of
from sweeps.tracking.ledger import Confirmed, Ledger

_log = logging.getLogger(__name__)

_LONGEST_PAUSE_SECONDS = 60.0
_QUIET_SECONDS = 5.0
"""How long the end waits for MLflow before it says so."""
_HOPELESS_SECONDS = 4.0
"""How long to try what waiting does not mend: the first runs, in case it is only one's trouble."""

_ENVIRONMENT = {
    # By default MLflow retries 7 times, 246 s. We retry ourselves. A retry inside a call is worse than none,
    # as it repeats `create run` blindly after a time-out, which doubles the run.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "PGCONNECT_TIMEOUT": "10",
    # The terminal belongs to the sweep's progress.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",
    # A sweep talks to the addresses that it was given, and to no other.
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
# A connection that is kept leads to the file that was there when it was made, also if it was set aside since.
_ENVIRONMENT_OF_SQLITE = {"MLFLOW_SQLALCHEMYSTORE_POOLCLASS": "NullPool"}


def prepare_environment(sqlite: bool = True) -> None:
    """Set what MLflow reads on import and at each call; what the user has set stays."""
    for name, value in (_ENVIRONMENT | (_ENVIRONMENT_OF_SQLITE if sqlite else {})).items():
        os.environ.setdefault(name, value)


class Sink(Protocol):
    """Where contents go."""

    @property
    def runs(self) -> dict[str, str]:
        """Return the ids of the runs that there are, by subject."""

    def show(self, content: Content, files: bool) -> str:
        """Show `content`, with its files if they are wanted, and return its run's id."""


@dataclass(frozen=True)
class Left:
    """What MLflow does not have when the waiting for it is over."""

    runs: int = 0
    """How many of MLflow's runs are missing or show too little; 0 if it has all."""
    reason: str = ""
    """What MLflow or a library said last; empty if there was too little time."""
    advice: str = ""
    """What to do about it; empty if waiting is all."""
    refused: int = 0
    """How many MLflow will never take as they are."""


class Sender:
    """Sends what differs, each until it is confirmed or refused for good. No exception ends it."""

    def __init__(
        self,
        contents: RunContents,
        ledger: Ledger,
        connect: Callable[[TrackingFault | None], Sink],
        address: str,
        first_pause_seconds: float = 1.0,
    ) -> None:
        """`connect` is told what went wrong over the connection before, if that was a new one."""
        self._contents, self._ledger, self._connect, self._address = contents, ledger, connect, address
        self._first_pause_seconds = first_pause_seconds
        self._sink: Sink | None = None
        self._due = dict.fromkeys(contents.subjects(), 0.0)
        """What to look at, the first one next, and from when on, in `time.monotonic`'s seconds."""
        self._in_hand: set[str] = set()
        self._lock = threading.Lock()
        self._failures, self._settled = 0, 0
        self._fault: TrackingFault | None = None
        self._news, self._closing, self._given_up = threading.Event(), threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work, name="ubt-tracking", daemon=True)

    def note(self, subjects: Iterable[str], wait_seconds: float = 0.0) -> None:
        """Have subjects looked at, those last that are looked at already; after a while, so that more news join."""
        due = time.monotonic() + wait_seconds
        with self._lock:
            self._due |= {subject: min(due, self._due.get(subject, due)) for subject in subjects}

    def wake(self) -> None:
        """Tell the thread, started on the first call, that there is something to look at."""
        if self._thread.ident is None:
            self._thread.start()
        self._news.set()

    def drain(self, patience_seconds: float, show: Callable[[int, str], None]) -> None:
        """Wait as long as there is progress; each second `show` is told how much is left, and what is in the way."""
        with self._lock:
            self._due = dict.fromkeys(self._due, 0.0)
        self.wake()
        settled, since = self._settled, time.monotonic()
        while self._left and time.monotonic() - since < patience_seconds:
            fault = self._fault if self._failures else None
            if fault and fault.advice and time.monotonic() - since > _HOPELESS_SECONDS:
                return
            show(self._left, str(fault or ""))
            time.sleep(min(1.0, patience_seconds / 4))
            if self._settled != settled:
                settled, since = self._settled, time.monotonic()

    def close(self, timeout_seconds: float) -> Left:
        """Send what can be sent within the time, end the thread, and return what is left.

        A server that is down costs one attempt after the call, not the whole time.
        """
        self._closing.set()
        self._news.set()
        if self._thread.ident is not None:
            self._thread.join(min(timeout_seconds, _QUIET_SECONDS))
            if self._thread.is_alive() and timeout_seconds > _QUIET_SECONDS:
                _log.warning(
                    "MLflow at %s does not have %d runs yet; this waits for it for at most a minute",
                    self._address,
                    self._left,
                )
                self._thread.join(timeout_seconds - _QUIET_SECONDS)
        self._given_up.set()  # a thread that is still at it ends after its content
        refused = sum(1 for entry in self._ledger.confirmed.values() if entry.refused)
        left, fault = self._left, self._fault
        return Left(left, str(fault or ""), fault.advice if fault else "", refused) if left else Left(refused=refused)

    @property
    def _left(self) -> int:
        with self._lock:
            return len(self._due.keys() | self._in_hand)

    def _work(self) -> None:
        while not self._given_up.is_set():
            last = self._closing.is_set()
            try:
                self._step()
            except BaseException as error:  # noqa: BLE001 — of what libraries raise nothing may end this thread
                self._postpone(fault_of(error))
            if last and self._failures and not self._mending:
                self._given_up.set()

    def _step(self) -> None:
        subject, wait_seconds = self._next()
        if subject is not None:
            self._attempt(subject)
        elif self._closing.is_set():
            self._given_up.set()
        else:
            self._news.wait(wait_seconds)
            self._news.clear()

    def _next(self) -> tuple[str | None, float | None]:
        """Return what to look at now; if nothing, how long there is time, None if there is nothing at all."""
        with self._lock:
            now = math.inf if self._closing.is_set() else time.monotonic()
            subject = next((subject for subject, due in self._due.items() if due <= now), None)
            return subject, None if subject is not None or not self._due else min(self._due.values()) - now

    def _attempt(self, subject: str) -> None:
        """Try once. A failure counts only over a new connection: an old one may know runs that are gone."""
        new = self._sink is None
        try:
            if self._sink is None:
                self._sink = self._connect(self._fault if self._failures else None)
                self.note(self._ledger.keep(self._sink.runs))
            if STUDY not in self._sink.runs:
                subject = STUDY
            self._settle(subject, self._sink, new)
        except BaseException as error:
            self._sink = None
            if new:
                with self._lock:  # one that fails must not keep the others from being tried
                    self._due[subject] = self._due.pop(subject, 0.0)
                raise
            self._fault = fault_of(error)

    def _settle(self, subject: str, sink: Sink, new: bool) -> None:
        """Send what differs of a subject, if anything does."""
        with self._lock:
            self._due.pop(subject, None)  # news that come from here on are looked at again
            self._in_hand = {subject}
        try:
            content = self._contents.differing(subject, self._ledger)
            self.note(self._contents.moved())
            if content is not None:
                self._send(content, sink, new)
        except BaseException:
            self.note([subject])
            raise
        finally:
            self._in_hand = set()
        self._settled += 1
        if self._failures:
            _log.info("MLflow at %s answers again.", self._address)
        self._failures, self._fault = 0, None

    def _send(self, content: Content, sink: Sink, new: bool) -> None:
        before, refused = self._ledger.confirmed.get(content.subject), ""
        is_new = content.subject not in sink.runs
        try:
            run = sink.show(content, files=before is None or before.files_digest != content.files_digest)
        except Exception as error:
            fault = fault_of(error)
            if not (new and isinstance(fault, RefusedError)):
                raise
            run, refused = sink.runs.get(content.subject, ""), str(fault)
            _log.warning(
                "MLflow at %s refuses what %s shows: %s. The rest goes on.",
                *(self._address, content.subject or "the study's run", _shortened(refused)),
            )
        self._ledger.confirm(content.subject, Confirmed(run, content.digest, content.files_digest, refused))
        if is_new and content.subject != STUDY and self._contents.status != "RUNNING":
            self._ledger.unsettle(STUDY)  # whose description may link to it
            self.note([STUDY])

    def _postpone(self, fault: TrackingFault) -> None:
        """Say once what is in the way, then pause, until closing at the longest."""
        told = self._failures > 0 and type(self._fault) is type(fault)
        self._fault = fault
        self._failures += 1
        if self._mending:
            return
        if not told or (self._failures == 2 and isinstance(fault, BrokenDatabaseError)):
            _log.warning(
                "MLflow at %s %s (%s). It is tried again, and the run folder keeps everything%s.",
                *(self._address, fault.headline, _shortened(str(fault))),
                f". What to do: {fault.advice}" if fault.advice else "",
            )
        pause = self._first_pause_seconds * 2 ** min(self._failures - 1, 16)
        self._closing.wait(min(pause, _LONGEST_PAUSE_SECONDS))

    @property
    def _mending(self) -> bool:
        """Tell whether the next connection may mend what is in the way."""
        return isinstance(self._fault, BrokenDatabaseError) and self._failures == 1


def _shortened(text: str, limit: int = 300) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
