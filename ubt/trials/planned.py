"""What a run was planned to cost, as its folder keeps it, to be set against what it took. Loads no torch."""

from __future__ import annotations

from ubt.config import Config

PLAN_FILE = "plan.json"
"""Its name in a run folder."""


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
