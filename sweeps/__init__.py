"""Sweeps of UBT: studies, search, the gate that shares stages, Ray Tune, progress, and the `ubt` command."""
