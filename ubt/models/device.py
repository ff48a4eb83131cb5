"""Where and how models are computed: device, precision, memory layout, threads."""

from __future__ import annotations

import contextlib
import os
import sys

import torch

from ubt.common.errors import Problem, UserError


def pick_device(gpus: float) -> torch.device:
    """Return the device of a trial that is given `gpus` GPUs: CUDA, or the CPU if there are none for it.

    Raises:
        UserError: if torch sees no GPU where there is to be one: what takes minutes there would take days here.
    """
    if gpus and not torch.cuda.is_available():
        advice = "`ubt doctor` says what torch sees; `--set resources.gpus_per_trial=0` computes on the CPU"
        raise UserError(Problem("resources.gpus_per_trial", "torch sees no GPU", gpus, advice))
    return torch.device("cuda" if gpus else "cpu")


def use_threads(threads: int) -> None:
    """Compute with `threads` CPU threads; a reused worker would otherwise keep those of its last trial."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    torch.set_num_threads(threads)


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[object]:
    """Return the context that runs in bfloat16 if `precision` says so.

    "auto" is float32 here: where it is to be more, the study has said it, for a result's key must not depend on the
    device that happens to be there.
    """
    if precision != "bfloat16":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def peak_memory_bytes(device: torch.device) -> int:
    """Return the peak of memory on the device since `reset_peak_memory`, or this process's on a CPU."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    import resource  # noqa: PLC0415 — Unix only, and so is the CPU figure

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def reset_peak_memory(device: torch.device) -> None:
    """Start counting the device's peak memory anew (a CPU process's peak cannot be reset)."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
