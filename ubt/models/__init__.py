"""CLIP models: building, loading and using any of open_clip's, and the embedded `tiny-rn`.

Nothing is imported here: `ubt.models.settings` serves planning, which must not wait for torch.
"""
