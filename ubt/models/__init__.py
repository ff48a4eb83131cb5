"""CLIP models: building, loading and using any of open_clip's, and the embedded `tiny-rn`."""

from ubt.models.build import build_clip, check_model_name
from ubt.models.clip import Clip

__all__ = ["Clip", "build_clip", "check_model_name"]
