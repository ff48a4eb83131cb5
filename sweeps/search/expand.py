"""From a design to the configurations that a study runs: conditions applied, repeats left out."""

from __future__ import annotations

import json

from pydantic import JsonValue

from sweeps.search.base import Changes, Condition, Proposal, Search
from sweeps.search.designs import Concat
from ubt.config import get_path
from ubt.config.dotted_paths import JsonObject


def proposals(search: Search, base: JsonObject) -> list[Proposal]:
    """Return the distinct configurations of a design, as differences from the base, in the design's order.

    Raises:
        ValueError: if they cannot be laid out.
    """
    parts = search.designs if isinstance(search, Concat) else [search]
    distinct: dict[str, Proposal] = {}
    for part in parts:
        for changes in part.layout():
            changed = differing(active(active(changes, part, base), search, base), base)
            distinct.setdefault(identity(changed), Proposal(len(distinct), changed, part.label(changes)))
    return list(distinct.values())


def configurations(search: Search, base: JsonObject) -> list[Changes]:
    """Return the same without their numbers and labels.

    Raises:
        ValueError: if they cannot be laid out.
    """
    return [proposal.changes for proposal in proposals(search, base)]


def active(changes: Changes, search: Search, base: JsonObject) -> Changes:
    """Return the changes without those whose conditions do not hold, going by the values given and the base's."""
    if not search.when:
        return changes
    return {path: value for path, value in changes.items() if _holds(search.when.get(path, {}), changes, base)}


def differing(changes: Changes, base: JsonObject) -> Changes:
    """Return the changes without those that set what the base has anyway."""
    return {path: value for path, value in changes.items() if value != _value(path, {}, base)}


def identity(changes: Changes) -> str:
    """Return a text that is equal for equal configurations."""
    return json.dumps(changes, sort_keys=True)


def _holds(condition: Condition, changes: Changes, base: JsonObject) -> bool:
    for path, wanted in condition.items():
        allowed = wanted if isinstance(wanted, list) else [wanted]
        if _value(path, changes, base) not in allowed:
            return False
    return True


def _value(path: str, changes: Changes, base: JsonObject) -> JsonValue:
    if path in changes:
        return changes[path]
    try:
        return get_path(base, path)
    except KeyError:
        return None
