"""Tracking: MLflow gets a copy of every study; the records on disk stay the truth and nothing is read back.

One MLflow run a study, one child run a trial, the same ones after a resume. MLflow may be slow, full, down or broken:
the sweep goes on. What MLflow shall show is derived from the run folder, and what differs from what it confirmed is
sent, by the sweep or later by `ubt track`. Importing this loads no MLflow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ubt.lazy import lazily

if TYPE_CHECKING:
    from sweeps.tracking.config import TrackingSettings
    from sweeps.tracking.delivery import Left
    from sweeps.tracking.tracker import Tracker

__all__ = ["Left", "Tracker", "TrackingSettings"]

_MODULES = {
    "Left": "sweeps.tracking.delivery",
    "Tracker": "sweeps.tracking.tracker",
    "TrackingSettings": "sweeps.tracking.config",
}

__getattr__ = lazily(__name__, _MODULES)
