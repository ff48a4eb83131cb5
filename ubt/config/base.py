"""The base of every configuration model."""

from __future__ import annotations

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
