"""The base of every configuration model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, JsonValue


class Config(BaseModel):
    """Frozen, strict about unknown fields, and finite: NaN is never a setting."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True, validate_default=True
    )

    def as_json(self) -> dict[str, JsonValue]:
        """Return the configuration after coercion, as plain JSON values."""
        dumped: dict[str, JsonValue] = self.model_dump(mode="json")
        return dumped


Function = str | Callable[..., Any]
"""A function, or its name as `module:function`, by which it is imported when it is called: planning loads no torch."""


class StageConfig(Config):
    """A configuration that is one stage by itself, such as a detector or a metric: its fields are the stage's settings.

    What a subclass says of the stage beside them is the same as in a `StageSpec`.
    """

    kind: str
    """Which one is meant."""
    label: ClassVar[str] = ""
    """What people call it, in tables and figures; its kind if empty."""
    version: ClassVar[int] = 1
    """Raised when equal settings would give another artifact, so that old ones are not found any more."""
    needs: ClassVar[tuple[str, ...]] = ()
    """Roles of the artifacts that the stage is given."""
    run: ClassVar[Function]
    """The stage's function of its context."""
    diagnose: ClassVar[Function | None] = None
    """Its diagnostics, which know the poison that the stage does not."""
    seeded: ClassVar[bool] = True
    """The trial's seed is part of the key."""
