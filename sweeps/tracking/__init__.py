"""Tracking: MLflow gets a copy of every study; the records on disk stay the truth and nothing is read back.

One MLflow run a study, one child run a trial, the same ones after a resume. MLflow may be slow, full, down or broken:
the sweep goes on. What MLflow shall show is derived from the run folder, and what differs from what it confirmed is
sent, by the sweep or later by `ubt track`. Importing this loads no MLflow.
"""

from sweeps.tracking.config import TrackingSettings
from sweeps.tracking.delivery import Left
from sweeps.tracking.tracker import Tracker

__all__ = ["Left", "Tracker", "TrackingSettings"]
