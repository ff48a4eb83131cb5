"""The GPU memory that trials took, against what there is: whether more of them, or fewer, should share a GPU."""

from __future__ import annotations

from collections.abc import Sequence

from ubt.trials.record import TrialRecord

_SHARES = (1, 2, 4, 5, 8, 10, 16, 20)
"""Trials on one GPU whose share of it is a short number."""
_MARGIN = 1.1
"""More than the peak: torch keeps memory in blocks, and not all of each is used."""
_PROCESS_BYTES = 1 << 30
"""What each process takes beside its tensors: CUDA's context, and its libraries' own workspaces."""


def gpu_advice(records: Sequence[TrialRecord], gpus_per_trial: float) -> str:
    """Return in words what the peak of GPU memory says of `resources.gpus_per_trial`; "" if all is well, or unknown."""
    on_gpus = [record for record in records if record.device.startswith("cuda") and record.device_memory_bytes]
    computed = [stage for record in on_gpus for stage in record.stages if not stage.reused and stage.peak_memory_bytes]
    if not computed or not gpus_per_trial:
        return ""
    most = max(computed, key=lambda stage: stage.peak_memory_bytes)
    there = min(record.device_memory_bytes for record in on_gpus)
    needed = most.peak_memory_bytes * _MARGIN + _PROCESS_BYTES
    share, fitting = round(1 / gpus_per_trial), max((n for n in _SHARES if n * needed <= there), default=1)
    used = f"GPU memory: {_gigabytes(most.peak_memory_bytes)} of {_gigabytes(there)} GB used, most by `{most.stage}`"
    if fitting > share:
        each = f"{fitting} trials on each GPU, if there are {fitting} × resources.cpus_per_trial CPUs for it"
        return f"{used}: `resources.gpus_per_trial={1 / fitting:g}` would fit ({each})"
    if share > 1 and share * needed > there:
        return f"{used}, by each of {share} trials on it: `resources.gpus_per_trial={1 / fitting:g}` would be safer"
    return ""


def _gigabytes(size_bytes: int) -> str:
    """Return a size without its unit, as GPUs are spoken of: 2³⁰ bytes each."""
    return f"{size_bytes / 2**30:.1f}" if size_bytes < 10 << 30 else f"{size_bytes / 2**30:.0f}"
