"""What a study asks of the machine that plans it, as far as that can be seen without Ray or torch."""

from __future__ import annotations

import os
from pathlib import Path

from sweeps.study.config import Resources


def machine_notes(resources: Resources) -> tuple[str, ...]:
    """Return what trials ask for that this machine does not have; a cluster's nodes may."""
    cpus, cards = len(os.sched_getaffinity(0)), gpus()
    notes = []
    trials = resources.concurrent_trials or 1
    if resources.cpus_per_trial > cpus:
        notes.append(f"a trial asks for {resources.cpus_per_trial} CPUs and this machine has {cpus}")
    elif trials * resources.cpus_per_trial > cpus:
        notes.append(
            f"{trials} trials at a time ask for {trials * resources.cpus_per_trial} CPUs and this machine has {cpus}"
        )
    if resources.gpus_per_trial > cards:
        notes.append(f"a trial asks for {resources.gpus_per_trial:g} GPU and this machine has {cards}")
    elif trials * resources.gpus_per_trial > cards:
        notes.append(
            f"{trials} trials at a time ask for {trials * resources.gpus_per_trial:g} GPUs and this machine has {cards}"
        )
    return tuple(f"resources: {note}; a cluster's nodes must have them" for note in notes)


def gpus() -> int:
    """Return how many NVIDIA GPUs the driver shows; 0 where there is none."""
    folder = Path("/proc/driver/nvidia/gpus")
    return len(list(folder.iterdir())) if folder.is_dir() else 0
