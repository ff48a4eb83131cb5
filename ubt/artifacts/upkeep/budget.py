"""What of a store may go so that it takes no more than a budget: what is needed stays, of the rest what was used last.

An artifact that goes is computed again when a trial needs it: a budget costs time, and never a result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from pydantic import ByteSize, TypeAdapter, ValidationError

from ubt.artifacts.manifest import ArtifactManifest
from ubt.common.errors import Problem, UserError


@dataclass(frozen=True)
class Needs:
    """Keys of artifacts that are needed, by how much."""

    computed: frozenset[str] = frozenset()
    """By trials that compute just now, of whichever sweep: these stay."""
    plan: frozenset[str] = frozenset()
    """By trials that are yet to run: these stay."""
    front: frozenset[str] = frozenset()
    """By what is on the front, or chosen: these go last."""

    def of(self, key: str) -> int:
        """Return how much an artifact is needed: what has 2 or more stays."""
        return 3 if key in self.computed else 2 if key in self.plan else 1 if key in self.front else 0


@dataclass(frozen=True)
class Excess:
    """What a store has to give up."""

    leaving: tuple[ArtifactManifest, ...]
    """What goes, in this order."""
    size_bytes: int
    """What the artifacts that stay take."""
    over_bytes: int
    """How much more that is than the budget; 0 if it is no more."""


def excess(
    manifests: Sequence[ArtifactManifest],
    budget_bytes: int,
    needs: Needs,
    used_at: Callable[[ArtifactManifest], datetime],
    other_bytes: int = 0,
) -> Excess:
    """Return what has to go for the artifacts, and `other_bytes` beside them, to take no more than a budget.

    What is needed least goes first, and of that what was used longest ago. A model that another one is stored as a
    difference from is needed as much as that, was used as lately, and goes after it.
    """
    by_key = {manifest.key: manifest for manifest in manifests}
    need = {key: needs.of(key) for key in by_key}
    used = {key: used_at(manifest) for key, manifest in by_key.items()}
    depth = _depths(by_key)
    for key in sorted(by_key, key=lambda key: -depth[key]):
        base = _base(by_key[key])
        if base in by_key:
            need[base], used[base] = max(need[base], need[key]), max(used[base], used[key])
    left = sum(manifest.size_bytes for manifest in manifests) + other_bytes
    leaving = []
    for key in sorted(by_key, key=lambda key: (need[key], used[key], -depth[key])):
        if left <= budget_bytes or need[key] > 1:
            break
        left -= by_key[key].size_bytes
        leaving.append(by_key[key])
    return Excess(tuple(leaving), left, max(0, left - budget_bytes))


def parse_size(text: str) -> int:
    """Return a number of bytes written as `200GB` or `64GiB`.

    Raises:
        UserError: if it is not written so.
    """
    try:
        size: int = TypeAdapter(ByteSize).validate_python(text)
    except ValidationError as error:
        raise UserError(Problem("--budget", "is a number of bytes with its unit", text, "e.g. 200GB, 64GiB")) from error
    return size


def _base(manifest: ArtifactManifest) -> str:
    return (manifest.base or "").partition("/")[2]


def _depths(by_key: Mapping[str, ArtifactManifest]) -> dict[str, int]:
    """Return how many models each is a difference from, one on top of the other."""
    found: dict[str, int] = {}
    for key in by_key:
        chain: list[str] = []
        at = key
        while at in by_key and at not in found and at not in chain:
            chain.append(at)
            at = _base(by_key[at])
        start = found.get(at, -1) + 1
        found.update((one, start + number) for number, one in enumerate(reversed(chain)))
    return found
