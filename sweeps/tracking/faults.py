"""The two ways in which sending can fail. Neither ever reaches the sweep."""

from __future__ import annotations


class UnavailableError(Exception):
    """MLflow cannot take anything now (down, slow, full, no access): the event waits."""


class RefusedError(Exception):
    """MLflow will never take this event (a parameter changed, say): it is set aside with the reason."""
