"""A queue on disk: what MLflow has not confirmed yet, one file an event, in the order of its happening.

A file is written whole before it counts and removed after MLflow has taken it. So a kill at any moment loses
nothing, and may send an event twice, which changes nothing (see `mlflow_sink`).
"""

from __future__ import annotations

import re
import threading
import uuid
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from sweeps.tracking.events import Event, parse_event
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
