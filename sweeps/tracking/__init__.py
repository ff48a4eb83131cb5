"""Tracking: MLflow gets a copy of every study; the records on disk stay the truth and nothing is read back.

One MLflow run a study, one child run a trial, the same ones after a resume. MLflow may be slow, full or
down: the sweep goes on, what could not be sent waits in `<run>/outbox` and is sent later. Importing this
loads no MLflow.
"""

from sweeps.tracking.config import TrackingSettings, without_credentials
from sweeps.tracking.tracker import Tracker

__all__ = ["Tracker", "TrackingSettings", "without_credentials"]
