"""Delivery to MLflow: a queue on disk, one file an event, and a thread that carries it over with patience."""

from __future__ import annotations

import logging
import os
import re
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pydantic import ValidationError

from sweeps.tracking.config import without_credentials
from sweeps.tracking.events import Event, RefusedError, UnavailableError, parse_event
from ubt.common.atomic_files import write_whole

_NAME = re.compile(r"(?P<counter>\d+)\.(?P<subject>.+)\.json")


@dataclass(frozen=True)
class Waiting:
    """An event that was not sent yet, and its file."""

    path: Path
    event: Event


class Outbox:
    """The folder `<run>/outbox`. One thread adds, another one sends."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rejected = folder / "rejected"
        self._lock = threading.Lock()
        self._newest = {_subject(path): path for path in self._files()}
        # Set-aside files count too, or a later event of the same number would overwrite one.
        numbers = [_counter(path) for path in (*self._files(), *self.rejected.glob("*.json"))]
        self._next = max(numbers, default=0) + 1

    @property
    def identity(self) -> str:
        """Return the name under which MLflow's runs are found again; made once for each run folder.

        The study's name does not do: a second run of one study beside the first shares its database.
        """
        path = self.folder / "identity"
        if not path.exists():
            write_whole(path, uuid.uuid4().hex)
        return path.read_text(encoding="utf-8").strip()

    def add(self, event: Event) -> None:
        """Keep `event` until it is sent; an older one about the same subject is dropped.

        Raises:
            OSError: if the disk is full or not writable.
        """
        with self._lock:
            path = self.folder / f"{self._next:010d}.{event.subject}.json"
            write_whole(path, event.model_dump_json())
            self._next += 1
            superseded = self._newest.get(event.subject)
            self._newest[event.subject] = path
            if superseded:
                superseded.unlink(missing_ok=True)

    def oldest(self) -> Waiting | None:
        """Return the event to send next, or None; files that hold no event are set aside."""
        for path in self._files():
            try:
                return Waiting(path, parse_event(path.read_text(encoding="utf-8")))
            except FileNotFoundError:
                continue  # superseded a moment ago
            except (ValidationError, UnicodeDecodeError) as error:
                self.set_aside(path, f"this file holds no event: {error}")
        return None

    def sent(self, waiting: Waiting) -> None:
        """Forget an event that MLflow has taken; a newer one about its subject stays."""
        waiting.path.unlink(missing_ok=True)

    def set_aside(self, path: Path, reason: str) -> None:
        """Move an event out of the queue, so that the rest goes on, and write the reason beside it."""
        write_whole(self.rejected / f"{path.stem}.reason.txt", f"{reason}\n")
        if path.exists():
            path.replace(self.rejected / path.name)

    def __len__(self) -> int:
        return len(self._files())

    def _files(self) -> list[Path]:
        return sorted(path for path in self.folder.glob("*.json") if _NAME.fullmatch(path.name))


def _subject(path: Path) -> str:
    match = _NAME.fullmatch(path.name)
    return match["subject"] if match else ""


def _counter(path: Path) -> int:
    match = _NAME.fullmatch(path.name)
    return int(match["counter"]) if match else 0


_log = logging.getLogger(__name__)

_LONGEST_PAUSE_SECONDS = 60.0

_ENVIRONMENT = {
    # By default MLflow retries 7 times, 246 s. We retry ourselves. A retry inside a call is worse than none,
    # as it repeats `create run` blindly after a time-out, which doubles the run.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    # The terminal belongs to the sweep's progress.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    # A sweep talks to the addresses that it was given, and to no other.
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


def prepare_environment() -> None:
    """Set what MLflow reads on import and at each call; what the user has set stays."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)


class Sink(Protocol):
    """Where events go."""

    def send(self, event: Event) -> None:
        """Deliver `event`, or raise `UnavailableError` or `RefusedError`."""


class Sender:
    """Sends the outbox's events in order, each until it is taken or refused for good."""

    def __init__(
        self, outbox: Outbox, connect: Callable[[], Sink], address: str, first_pause_seconds: float = 1.0
    ) -> None:
        prepare_environment()  # not in the thread: Ray Tune may import MLflow before there is news
        self._outbox, self._connect, self._address = outbox, connect, address
        self._first_pause_seconds = first_pause_seconds
        self._sink: Sink | None = None
        self._failures = 0
        self._news, self._closing, self._given_up = threading.Event(), threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work, name="ubt-tracking", daemon=True)

    def wake(self) -> None:
        """Tell the thread, started on the first call, that there is something to send."""
        if self._thread.ident is None:
            self._thread.start()
        self._news.set()

    def close(self, timeout_seconds: float) -> int:
        """Send what can be sent within the time, end the thread, and return how many events still wait.

        A server that is down costs one attempt after the call, not the whole time.
        """
        self._closing.set()
        self._news.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_seconds)
        self._given_up.set()  # a thread that is still at it ends after its event
        return len(self._outbox)

    def _work(self) -> None:
        while not self._given_up.is_set():
            last = self._closing.is_set()
            try:
                self._step()
            except Exception as error:  # noqa: BLE001 — the outbox's own disk, or what a library raises on import
                self._postpone(without_credentials(f"{type(error).__name__}: {error}"))
            if last and self._failures:
                self._given_up.set()

    def _step(self) -> None:
        waiting = self._outbox.oldest()
        if waiting:
            self._attempt(waiting)
        elif self._closing.is_set():
            self._given_up.set()
        else:
            self._news.wait()
            self._news.clear()

    def _attempt(self, waiting: Waiting) -> None:
        """Try once. A failure counts only over a new connection: an old one may know runs that are gone."""
        new = self._sink is None
        try:
            self._sink = self._sink or self._connect()
            self._sink.send(waiting.event)
        except RefusedError as fault:
            self._sink = None
            if new:
                self._set_aside(waiting, without_credentials(str(fault)))
                self._answered()
        except UnavailableError as fault:
            self._sink = None
            if new:
                self._postpone(without_credentials(str(fault)))
        else:
            self._outbox.sent(waiting)
            self._answered()

    def _set_aside(self, waiting: Waiting, reason: str) -> None:
        self._outbox.set_aside(waiting.path, reason)
        _log.warning(
            "MLflow at %s refuses an event (%s): %s. It was set aside in %s.",
            self._address,
            waiting.event.subject,
            _shortened(reason),
            self._outbox.rejected,
        )

    def _postpone(self, reason: str) -> None:
        """Say once that MLflow does not answer, then pause, until closing at the longest."""
        self._failures += 1
        if self._failures == 1:
            self._say_that_events_wait(reason)
        pause = self._first_pause_seconds * 2 ** min(self._failures - 1, 16)
        self._closing.wait(min(pause, _LONGEST_PAUSE_SECONDS))

    def _say_that_events_wait(self, reason: str) -> None:
        _log.warning(
            "MLflow at %s does not answer; %d events wait in %s; they are sent later. (%s)",
            self._address,
            len(self._outbox),
            self._outbox.folder,
            _shortened(reason),
        )

    def _answered(self) -> None:
        if self._failures:
            _log.info("MLflow at %s answers again.", self._address)
        self._failures = 0


def _shortened(text: str, limit: int = 300) -> str:
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
