"""Studies on data of toy size, and stores that know what their stages take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sweeps.study.config import StudyConfig
from ubt.artifacts.manifest import ArtifactManifest, Setup
from ubt.artifacts.store import ArtifactStore
from ubt.engine.graph import build_pipeline
from ubt.engine.work import KINDS, Calibrated, cpu_name, setup_of, work_of
from ubt.models.settings import ModelSettings

DATA = {"kind": "scenes", "train_pairs": 600, "pretrain_pairs": 400, "val_images": 24, "test_images": 36}
SECONDS = {"stages": 0.01, "images": 0.001, "captions": 0.002, "trained_images": 0.004, "trained_captions": 0.005}


def study(
    store: Path, model: dict[str, Any] | None = None, data: dict[str, Any] | None = None, **rest: Any
) -> StudyConfig:
    victim = {"data": {**DATA, **(data or {})}, "model": model or {"name": "tiny-rn"}}
    return StudyConfig.model_validate(
        {"name": "toy", "store": str(store), "victim": victim, "search": {"design": "grid"}, **rest}
    )


def setup(name: str = "tiny-rn", threads: int = 1, hardware: str = "", gpus: float = 0.0) -> Setup:
    return setup_of(ModelSettings(name=name), hardware or cpu_name(), threads, gpus)


def ran(given: StudyConfig, on: Setup, factor: float = 1.0, node: str = "") -> None:
    """Put every stage of a study's base into its store, as computed at `factor` times the seconds of its work."""
    assert given.store
    trial = given.trial({})
    for one in build_pipeline(trial, 7):  # another seed: what is planned is not there
        work = work_of(one, trial, given.victim.data.sizes(Path("nowhere")))
        assert work is not None
        described = ArtifactManifest(
            stage=one.spec.name,
            key=one.key,
            version=1,
            seed=7,
            settings=one.settings,
            inputs={},
            seconds=factor * (work.seconds({kind: SECONDS.get(kind, 0.0) for kind in KINDS}) or 0.0),
            setup=on,
            work=work.as_json(),
            peak_memory_bytes=1000,
        )
        ArtifactStore(given.store).publish(described, {"tensors": b"x" * 100})


def calibrated(store: Path, on: Setup, factor: float = 1.0) -> Calibrated:
    costs: dict[str, float] = {kind: factor * SECONDS.get(kind, 0.0) for kind in KINDS}
    found = Calibrated(
        setup=on, costs=costs, sizes={"models": 50, "bodies": 40, "image_towers": 30}, peak_memory_bytes=7
    )
    ArtifactStore(store).publish(found.as_artifact(), {})
    return found
