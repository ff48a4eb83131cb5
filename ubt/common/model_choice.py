"""Which of a trial's models is exported, and as what. Loads nothing, as commands name both among their options."""

from __future__ import annotations

from enum import StrEnum


class Format(StrEnum):
    """What is written."""

    SAFETENSORS = "safetensors"
    """One file."""
    PT = "pt"
    """One file: torch's own, a state dict."""
    OPEN_CLIP = "open-clip"
    """A folder, for `local-dir:` and for a model repository of Hugging Face."""


class Which(StrEnum):
    """Which of a trial's models."""

    DEFENDED = "defended"
    """The one that the backdoor was removed from."""
    POISONED = "poisoned"
    """The one with the backdoor."""
    CLEAN = "clean"
    """The one before the attack."""
