"""The functions of detectors: how far each training pair is trusted, and what a detector puts out."""

from ubt.detectors.trust import Trust, screened, similarities_under

__all__ = ["Trust", "screened", "similarities_under"]
