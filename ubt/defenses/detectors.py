"""Detectors as configured: how far each training pair is trusted. Each is one stage, `detect_KIND`. Loads no torch.

A new detector is its settings here, named in `DETECTORS.add`, and its function in `ubt.stages.detectors`; one of
another distribution an entry point in the group `ubt.detectors`.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from ubt.common.registry import Registry
from ubt.config import Config
from ubt.config.base import ByKind, Function, StageConfig, kind_of


class ScreenSettings(Config):
    """How many training pairs are looked at."""

    screened_ratio: float = Field(default=1.0, gt=0, le=1)
    """Fraction of the training pairs that the detector looks at, drawn at random, the same for all detectors and seeds.
    The others are neither suspected nor held in place. A few dozen poisoned pairs suffice, and of large data a part
    holds them."""


class Detector(StageConfig):
    """A detector as configured. Its function returns `Trust(...).output()` for the pairs that are screened.

    Example of one in another distribution: docs/howto/extend.md.
    """

    diagnose: ClassVar[Function | None] = "ubt.stages.detectors:diagnose"
    seeded: ClassVar[bool] = False


class CleanDetector(Detector):
    """Similarity of image and caption under the clean model: the paper's, shared by all implants of one poison."""

    kind: Literal["clean"] = "clean"
    label: ClassVar[str] = "clean model"
    version: ClassVar[int] = 6
    needs: ClassVar[tuple[str, ...]] = ("clean", "pairs")
    run: ClassVar[Function] = "ubt.stages.detectors:detect_clean"
    work: ClassVar[Function | None] = "ubt.stages.work:detect_by_one_model"


class GainDetector(Detector):
    """Little gain of similarity by the implant: cos under the clean model − cos under the poisoned one. Ours."""

    kind: Literal["gain"] = "gain"
    label: ClassVar[str] = "similarity gain"
    version: ClassVar[int] = 5
    needs: ClassVar[tuple[str, ...]] = ("clean", "poisoned", "pairs")
    run: ClassVar[Function] = "ubt.stages.detectors:detect_gain"
    work: ClassVar[Function | None] = "ubt.stages.work:detect_by_two_models"


class PoisonedDetector(Detector):
    """Similarity under the poisoned model. Ours, as an ablation: what the paper's is worth without a clean model."""

    kind: Literal["poisoned"] = "poisoned"
    label: ClassVar[str] = "poisoned model"
    version: ClassVar[int] = 5
    needs: ClassVar[tuple[str, ...]] = ("poisoned", "pairs")
    run: ClassVar[Function] = "ubt.stages.detectors:detect_poisoned"
    work: ClassVar[Function | None] = "ubt.stages.work:detect_by_one_model"


class NeighbourDetector(Detector):
    """What the four detectors share that look for near neighbours of a pair's image under the poisoned model."""

    version: ClassVar[int] = 5
    needs: ClassVar[tuple[str, ...]] = ("poisoned", "pairs")
    work: ClassVar[Function | None] = "ubt.stages.work:detect_by_neighbours"

    neighbours: int = Field(default=16, ge=1)
    """How many nearest images (k) are looked at; never more than there are others."""


class KnnDetector(NeighbourDetector):
    """Trust an image whose k-th nearest neighbour is close by."""

    kind: Literal["knn"] = "knn"
    label: ClassVar[str] = "k nearest neighbours"
    run: ClassVar[Function] = "ubt.stages.detectors:detect_knn"


class LofDetector(NeighbourDetector):
    """Trust an image of low local outlier factor."""

    kind: Literal["lof"] = "lof"
    label: ClassVar[str] = "local outlier factor"
    run: ClassVar[Function] = "ubt.stages.detectors:detect_lof"


class LidDetector(NeighbourDetector):
    """Trust an image around which few dimensions hold the others: of low local intrinsic dimension."""

    kind: Literal["lid"] = "lid"
    label: ClassVar[str] = "local intrinsic dimension"
    run: ClassVar[Function] = "ubt.stages.detectors:detect_lid"


class DaoDetector(NeighbourDetector):
    """Trust an image of low local outlier factor, distances being weighed by the local intrinsic dimension."""

    kind: Literal["dao"] = "dao"
    label: ClassVar[str] = "dimensionality-aware outlierness"
    run: ClassVar[Function] = "ubt.stages.detectors:detect_dao"


DETECTORS: Registry[type[Detector]] = Registry("detector", "ubt.detectors", kind_of, __name__, Detector)
DETECTORS.add(CleanDetector, GainDetector, PoisonedDetector, KnnDetector, LofDetector, LidDetector, DaoDetector)

DetectorConfig = Annotated[Detector, ByKind(DETECTORS, bare_names=True)]
"""A detector as configured; a bare name stands for its default settings."""
