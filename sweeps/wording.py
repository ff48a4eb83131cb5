"""How trials, configurations and times are called in a line."""

from __future__ import annotations

from pydantic import JsonValue

from sweeps.search.proposer import Changes, Proposal


def trial_name(proposal: Proposal, position: int, replicates: int) -> str:
    """Return a name that sorts by number: t0007, or t0007-s1 if every configuration has several seeds."""
    return f"t{proposal.number:04d}" + (f"-s{position}" if replicates > 1 else "")


def describe(changes: Changes) -> str:
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
