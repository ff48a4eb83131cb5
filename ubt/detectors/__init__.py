"""Detectors: how far each training pair is trusted. `defense.detector: NAME` runs the stage `detect_NAME`.

Loads no torch: the functions are named, and imported when a stage runs.
"""

from __future__ import annotations

from ubt.defenses.ubt import DetectSettings, ScreenSettings
from ubt.engine.spec import OfDefense, StageSpec

_SIMILARITY, _NEIGHBOURS = "ubt.detectors.similarity", "ubt.detectors.neighbours"


def _detector(name: str, version: int, needs: tuple[str, ...], run: str, settings: OfDefense) -> StageSpec:
    """Return the row of one detector."""
    return StageSpec(
        name=f"detect_{name}",
        version=version,
        needs=(*needs, "poison"),
        provides=("trust",),
        settings=settings,
        run=run,
        diagnose="ubt.detectors.trust:diagnose",
        seeded=False,
    )


DETECTORS: tuple[StageSpec, ...] = (
    _detector("clean", 6, ("clean",), f"{_SIMILARITY}:detect_clean", OfDefense(ScreenSettings)),
    _detector("gain", 5, ("clean", "poisoned"), f"{_SIMILARITY}:detect_gain", OfDefense(ScreenSettings)),
    _detector("poisoned", 5, ("poisoned",), f"{_SIMILARITY}:detect_poisoned", OfDefense(ScreenSettings)),
    _detector("knn", 4, ("poisoned",), f"{_NEIGHBOURS}:detect_neighbours", OfDefense(DetectSettings)),
    _detector("lof", 4, ("poisoned",), f"{_NEIGHBOURS}:detect_neighbours", OfDefense(DetectSettings)),
)
