from __future__ import annotations

from pathlib import Path

import pytest

from ubt.artifacts.store import ArtifactStore
from ubt.engine.work import CALIBRATION, Calibrated, cpu_name
from ubt.models.settings import ModelSettings
from ubt.stages import calibration


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Calibrated, Path]:
    """Measure as briefly as it can be done."""
    store = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(calibration, "_LONG_ENOUGH_SECONDS", 0.01)
        return calibration.calibrate(ModelSettings(), threads=1, gpus=0, batch_size=16, store=str(store)), store


def test_every_kind_of_work_takes_time_but_for_fits(measured: tuple[Calibrated, Path]) -> None:
    from ubt.engine.work import KINDS

    costs = measured[0].costs
    assert set(costs) == set(KINDS) - {"fits"}, "how long a classifier is fitted follows from the data"
    assert min(costs.values()) > 0
    assert costs["trained_images"] > costs["images"]


def test_a_model_in_part_takes_less_room_and_time_than_whole(measured: tuple[Calibrated, Path]) -> None:
    sizes, costs = measured[0].sizes, measured[0].costs
    assert sizes["models"] > sizes["bodies"] > sizes["image_towers"] > 0
    assert costs["models"] > costs["bodies"] > costs["image_towers"]


def test_it_says_what_it_was_measured_on_and_leaves_nothing_behind(measured: tuple[Calibrated, Path]) -> None:
    found, store = measured
    assert (found.setup.model, found.setup.threads, found.setup.hardware) == ("tiny-rn", 1, cpu_name())
    assert ArtifactStore(store).keys(CALIBRATION) == set()


def test_a_store_keeps_the_newest_of_each_setup(measured: tuple[Calibrated, Path], tmp_path: Path) -> None:
    found, store = measured[0], ArtifactStore(tmp_path)
    slower = found.model_copy(update={"costs": {kind: 2 * cost for kind, cost in found.costs.items()}})
    for one in (found, slower):
        store.publish(one.as_artifact(), {})
    (key,) = store.keys(CALIBRATION)
    kept = store.manifest(CALIBRATION, key)
    assert kept is not None
    assert Calibrated.read(kept) == slower
    mean = Calibrated.mean([found, slower])
    assert mean.costs["images"] == pytest.approx(1.5 * found.costs["images"])
    assert mean.at_once == 2
