"""How configurations and durations read in a line of text."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import JsonValue


def describe(changes: Mapping[str, JsonValue]) -> str:
    """Return changes in one line, by the last part of each path; a whole part by its kind and settings."""
    return ", ".join(f"{path.rpartition('.')[2]}={_text_of(value)}" for path, value in changes.items()) or "base"


def minutes(seconds: float) -> str:
    """Return seconds as m:ss or h:mm:ss."""
    whole, rest = divmod(int(seconds), 60)
    hours, left = divmod(whole, 60)
    return f"{hours}:{left:02}:{rest:02}" if hours else f"{left}:{rest:02}"


def _text_of(value: JsonValue) -> str:
    if not isinstance(value, dict) or "kind" not in value:
        return str(value)
    settings = ", ".join(f"{name}={setting}" for name, setting in value.items() if name != "kind")
    return f"{value['kind']}({settings})" if settings else str(value["kind"])
