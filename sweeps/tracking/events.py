"""What MLflow is sent, and how sending can fail. The newest event about a subject suffices."""

from __future__ import annotations

import time
from typing import Annotated, Literal

from pydantic import Field, JsonValue, TypeAdapter

from ubt.config import Config
from ubt.trials.record import TrialRecord


class UnavailableError(Exception):
    """MLflow cannot take anything now (down, slow, full, no access): the event waits."""


class RefusedError(Exception):
    """MLflow will never take this event (a parameter changed, say): it is set aside with the reason."""


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


class StudyStarted(Config):
    """A study began, or went on after an interruption."""

    kind: Literal["study-started"] = "study-started"
    study: str
    document: dict[str, JsonValue]
    """The study as configured."""
    at_ms: int = Field(default_factory=_now_ms)

    @property
    def subject(self) -> str:
        """Return what the event is about; a newer event about it supersedes this one."""
        return self.kind


class TrialUpdated(Config):
    """A trial began, finished an epoch or a stage, or ended."""

    kind: Literal["trial"] = "trial"
    record: TrialRecord
    searched: tuple[str, ...] = ()
    """Dotted paths of the search space: tracked even where a trial has the base's value."""
    at_ms: int = Field(default_factory=_now_ms)

    @property
    def subject(self) -> str:
        """Return what the event is about; a newer event about it supersedes this one."""
        return f"trial.{self.record.trial}"


class StudyFinished(Config):
    """A study ended and its report is written."""

    kind: Literal["study-finished"] = "study-finished"
    study: str
    summary: dict[str, JsonValue]
    front: tuple[str, ...]
    """Names of the trials on the front."""
    report_folder: str
    """Relative to the run folder if it lies within, so that a run may be moved before its report is sent."""
    complete: bool = True
    """False if trials are left: it was interrupted, or its cluster was lost."""
    at_ms: int = Field(default_factory=_now_ms)

    @property
    def subject(self) -> str:
        """Return what the event is about; a newer event about it supersedes this one."""
        return self.kind


Event = StudyStarted | TrialUpdated | StudyFinished

_ADAPTER: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="kind")])


def parse_event(text: str) -> Event:
    """Return the event in its JSON.

    Raises:
        pydantic.ValidationError: if it is none.
    """
    return _ADAPTER.validate_json(text)
