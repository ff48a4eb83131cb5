"""What the peak of GPU memory says of how many trials should share a GPU."""

from __future__ import annotations

import pytest

from sweeps.run.memory import gpu_advice
from ubt.trials.record import StageRecord, State, TrialRecord

GB = 1 << 30


def record(peak_gb: float, device_gb: int = 80, device: str = "cuda", reused: bool = False) -> TrialRecord:
    stage = StageRecord(stage="implant", key="k", reused=reused, seconds=1, peak_memory_bytes=int(peak_gb * GB))
    small = stage.model_copy(update={"stage": "poison", "reused": False, "peak_memory_bytes": GB // 4})
    return TrialRecord(
        study="s",
        trial="t0000",
        number=0,
        seed=0,
        config={},
        changes={},
        state=State.DONE,
        stages=(small, stage),
        device=device,
        device_memory_bytes=device_gb * GB,
    )


def test_a_gpu_that_is_mostly_empty_is_told_with_what_would_fit() -> None:
    told = gpu_advice([record(11), record(3)], 1)
    assert "11 of 80 GB used, most by `implant`: `resources.gpus_per_trial=0.2` would fit" in told
    assert "`resources.gpus_per_trial=0.125` would fit" in gpu_advice([record(8)], 0.5)


@pytest.mark.parametrize(
    ("peak_gb", "gpus_per_trial"), [(50, 1), (11, 0.2), (1, 1 / 20)], ids=["alone", "shared", "as many as are told"]
)
def test_what_fits_is_not_told(peak_gb: float, gpus_per_trial: float) -> None:
    assert gpu_advice([record(peak_gb)], gpus_per_trial) == ""


def test_trials_that_hardly_fit_beside_each_other_are_told() -> None:
    assert "`resources.gpus_per_trial=0.5` would be safer" in gpu_advice([record(30)], 0.25)


@pytest.mark.parametrize(
    "unknown", [record(11, device="cpu"), record(11, device_gb=0), record(0).model_copy(update={"stages": ()})]
)
def test_what_is_not_known_is_not_told(unknown: TrialRecord) -> None:
    assert gpu_advice([unknown], 1) == ""


def test_the_smallest_gpu_and_the_computed_stages_count() -> None:
    assert "6.0 of 24 GB used" in gpu_advice([record(6), record(6, device_gb=24), record(70, reused=True)], 1)
