"""How fast stages are: what a store's artifacts took, and what was measured by a few batches (`ubt plan --calibrate`).

Seconds are set against the work that they took, and only those of one setup say anything of it: the same architecture,
image size, precision, hardware and share of it. What has been measured on none is unknown.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from statistics import median

from ubt.artifacts.manifest import ArtifactManifest, Setup
from ubt.artifacts.store import ArtifactStore
from ubt.engine.graph import Node
from ubt.engine.work import CALIBRATION, Calibrated, Work, cpu_name

_SAMPLED = 100
"""Artifacts of a stage that are looked at: enough for a median, and few enough for S3."""
_AT_A_TIME = 16
_ROUGHLY: Mapping[str, float] = {
    "stages": 1,
    "images": 1,
    "captions": 1,
    "trained_images": 3,  # a step back takes about as long as two forward
    "trained_captions": 3,
    "distances": 30,
}
"""How much kinds of work weigh against each other where they have not been measured apart. No time follows from these
alone: they only carry what a stage took for one amount of work over to another amount."""


@dataclass(frozen=True)
class Estimate:
    """What a stage takes."""

    seconds: float
    artifacts: int
    """From how many it was read; 0: from a calibration alone."""


class Speeds:
    """What is known of the speed of some stages."""

    def __init__(self, store: ArtifactStore, stages: Iterable[str]) -> None:
        calibrations = map(Calibrated.read, _manifests(store, CALIBRATION))
        self._calibrated = {found.setup: found for found in calibrations if found}
        self._measured: defaultdict[tuple[str, Setup], list[ArtifactManifest]] = defaultdict(list)
        for stage in dict.fromkeys(stages):
            for manifest in _manifests(store, stage):
                if manifest.setup and manifest.work and manifest.seconds > 0:
                    self._measured[stage, manifest.setup].append(manifest)

    @cached_property
    def _newest(self) -> dict[Setup, str]:
        """Return setup → when something was last measured on it."""
        newest = {setup: found.measured_at for setup, found in self._calibrated.items()}
        for (_, setup), manifests in self._measured.items():
            newest[setup] = max([newest.get(setup, ""), *(manifest.created_at for manifest in manifests)])
        return newest

    def setup(self, wanted: Setup) -> Setup:
        """Return a setup on hardware that something has been measured on; as it is if there is none.

        This machine's CPU goes before others that are in question, then what was calibrated, then the newest.
        """
        alike = [setup for setup in self._newest if setup.model_copy(update={"hardware": wanted.hardware}) == wanted]
        here = cpu_name()
        known = self._calibrated
        return max(alike, key=lambda one: (one.hardware == here, one in known, self._newest[one]), default=wanted)

    def calibrated(self, setup: Setup) -> Calibrated | None:
        """Return what was measured by a few batches, if it was."""
        return self._calibrated.get(setup)

    def estimate(self, node: Node, work: Work | None, setup: Setup) -> Estimate | None:
        """Return what a stage takes from nothing; None if it is unknown."""
        measured = self._measured.get((node.spec.name, setup), [])
        calibrated = self._calibrated.get(setup)
        if work is None:
            return None
        if work.uncounted:
            return _as_equal_ones(node, work, measured)
        if measured:
            costs = calibrated.costs if calibrated and work.seconds(calibrated.costs) else _ROUGHLY
            ratios = [manifest.seconds / done for manifest in measured if (done := _weight(manifest, costs))]
            if ratios and (weight := _weighed(work, costs)):
                return Estimate(median(ratios) * weight, len(ratios))
        seconds = work.seconds(calibrated.costs) if calibrated else None
        return None if seconds is None else Estimate(seconds, 0)

    def size_bytes(self, node: Node, work: Work | None, setup: Setup) -> float | None:
        """Return how much disk a stage's artifact takes; None if it is unknown."""
        measured = self._measured.get((node.spec.name, setup), [])
        if measured:
            return float(median(manifest.size_bytes for manifest in measured))
        calibrated = self._calibrated.get(setup)
        if calibrated is None or work is None or work.uncounted:
            return None
        return sum(size * work.counts.get(kind, 0.0) for kind, size in calibrated.sizes.items())  # type: ignore[call-overload]

    def memory_bytes(self, setup: Setup) -> int | None:
        """Return the most memory that anything took on a setup; None if it is unknown."""
        peaks = [
            manifest.peak_memory_bytes
            for (_, one), found in self._measured.items()
            if one == setup
            for manifest in found
        ]
        calibrated = self._calibrated.get(setup)
        return max([*peaks, calibrated.peak_memory_bytes if calibrated else 0]) or None


def weight_of(node: Node, work: Work | None) -> float:
    """Return how much work a stage is beside others of its kind, where nothing has been measured."""
    weighed = 0.0 if work is None or work.uncounted else _weighed(work, _ROUGHLY)
    return weighed or float(_units(node.settings, node.spec.epochs))


def _as_equal_ones(node: Node, work: Work, measured: list[ArtifactManifest]) -> Estimate | None:
    """Return what equal settings took on as much data, by the epoch."""
    epochs = node.spec.epochs

    def settled(settings: Mapping[str, object]) -> dict[str, object]:
        return {name: value for name, value in settings.items() if name != epochs}

    alike = [one for one in measured if one.work == work.as_json() and settled(one.settings) == settled(node.settings)]
    if not alike:
        return None
    return Estimate(
        median(one.seconds / _units(one.settings, epochs) for one in alike) * _units(node.settings, epochs), len(alike)
    )


def _units(settings: Mapping[str, object], epochs: str | None) -> int:
    count = settings.get(epochs) if epochs else 1
    return max(1, count) if isinstance(count, int) else 1


def _weight(manifest: ArtifactManifest, costs: Mapping[str, float]) -> float:
    return _weighed(Work.of(manifest.work), costs)


def _weighed(work: Work, costs: Mapping[str, float]) -> float:
    """Return how much work it is with kinds weighed by `costs`; those that have none weigh nothing."""
    return sum(count * costs.get(kind, 0.0) for kind, count in work.counts.items())


def _manifests(store: ArtifactStore, stage: str) -> list[ArtifactManifest]:
    sampled = sorted(store.keys(stage))[:_SAMPLED]
    with ThreadPoolExecutor(_AT_A_TIME) as threads:  # each is a request where the store is on S3
        return [manifest for manifest in threads.map(lambda key: store.manifest(stage, key), sampled) if manifest]
