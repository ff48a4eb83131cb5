"""A defense whose one stage takes as long as it is told, and no CPU: to see how trials are spread over workers."""

from __future__ import annotations

import time
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from ubt.config import Config
from ubt.defenses import DEFENSES, Defense
from ubt.engine.context import Output, StageContext
from ubt.engine.spec import STAGES, OfDefense, StageSpec

PATIENCE_SECONDS = 400.0


class WaitSettings(Config):
    """How long it takes."""

    wait_seconds: float = Field(default=5.0, ge=0)
    while_exists: str = ""
    """A file: as long as it is there, the stage does not end."""
    number: int = 0
    """So that every trial has a stage of its own."""


@DEFENSES.register
class Waiting(WaitSettings, Defense):
    """Waits, and leaves the model as it is."""

    kind: Literal["waiting"] = "waiting"
    stages: ClassVar[tuple[str, ...]] = ("wait",)


def wait(context: StageContext) -> Output:
    """Return the poisoned model after a while."""
    settings, deadline = context.settings(WaitSettings), time.monotonic() + PATIENCE_SECONDS
    time.sleep(settings.wait_seconds)
    while settings.while_exists and Path(settings.while_exists).exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    return Output(model=context.artifact("poisoned").weights, base="poisoned")


STAGES.register(
    StageSpec("wait", 1, needs=("poisoned",), provides=("model",), settings=OfDefense(WaitSettings), run=wait)
)
