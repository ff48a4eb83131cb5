"""What stages cost: from artifacts in the store that were computed before, or a stated default."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from statistics import median

from ubt.graph import Node
from ubt.meta import Meta
from ubt.store import ArtifactStore

DEFAULT_SECONDS = 60.0
"""Taken for a stage, or an epoch of one, that this store has never seen."""
_SAMPLED = 50
"""Artifacts of a stage that are looked at: enough for a median, and few enough for S3."""


@dataclass(frozen=True)
class StageCost:
    """What one unit of a stage takes: an epoch if it can be continued by epochs, else the whole stage."""

    seconds: float
    size_bytes: float
    """Of one artifact."""
    measured: int
    """Artifacts that this was read from; 0: a default."""

    def seconds_of(self, node: Node) -> float:
        """Return the seconds that a node takes from nothing."""
        return self.seconds * units(node)


def units(node: Node) -> int:
    """Return how many units of work a node is."""
    return max(1, node.epochs) if node.spec.epochs else 1


def stage_costs(store: ArtifactStore, nodes: Iterable[Node]) -> dict[str, StageCost]:
    """Return the cost of each stage among the nodes."""
    specs = {node.spec.name: node.spec for node in nodes}
    return {name: _cost(store, name, by_epochs=bool(spec.epochs)) for name, spec in specs.items()}


def _cost(store: ArtifactStore, stage: str, by_epochs: bool) -> StageCost:
    sampled = islice(sorted(store.keys(stage)), _SAMPLED)
    metas = [meta for key in sampled if (meta := store.meta(stage, key))]
    if not metas:
        return StageCost(DEFAULT_SECONDS, 0.0, 0)
    seconds = median(meta.seconds / (_epochs(meta) if by_epochs else 1) for meta in metas)
    return StageCost(seconds, median(meta.size_bytes for meta in metas), len(metas))


def _epochs(meta: Meta) -> int:
    return max(1, meta.epochs[-1].epoch) if meta.epochs else 1
