"""What a run was planned to cost, as its folder keeps it, to be set against what it took. Loads no torch."""

from __future__ import annotations

from ubt.config import Config

PLAN_FILE = "plan.json"
"""Its name in a run folder."""


class PlannedData(Config):
    """A data set that a run was planned on."""

    kind: str
    key: str
    """Fingerprint of its content: equal data has an equal key, wherever it lies."""
    counts: dict[str, int]
    """Part → pairs or images: `train`, `pretrain`, `val`, `test`; empty if that was not known."""


class PlannedCosts(Config):
    """What was planned when a run began; what was not known is null."""

    seconds: dict[str, float | None]
    """Stage → seconds of what the store did not have."""
    wall_seconds: float | None
    workers: int
    """For which the wall time was worked out."""
    gpus: float
    """Of a trial."""
    trials: int
    data: tuple[PlannedData, ...] = ()
    """What it was planned on; empty in plans of before that was written down."""
