"""Whether the NVIDIA driver of this machine runs the CUDA that torch is built for. Loads no torch."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

OLDEST_DRIVER = {12: "525.60.13", 13: "580.65.06"}
"""CUDA's major version → the oldest driver for Linux that runs all its minor versions.

From NVIDIA's CUDA Toolkit Release Notes, "CUDA Toolkit and Minimum Required Driver Version for CUDA Minor Version
Compatibility". The locks of this package are for these two.
"""

_DRIVER_FILE = Path("/proc/driver/nvidia/version")
_VERSION = re.compile(r"Kernel Module(?: for \S+)?\s+(\d+(?:\.\d+)+)")


@dataclass(frozen=True)
class Torch:
    """What torch says of itself and of the GPUs that it sees."""

    version: str
    cuda: str | None
    """The version of CUDA that it is built for; None if it is built for CPUs."""
    usable: bool = False
    """It can use at least one GPU."""
    built_for: Sequence[str] = ()
    """Kinds of GPU that it has code for: `sm_75`, `sm_80`, `compute_90`, …"""
    gpus: Sequence[tuple[str, tuple[int, int]]] = ()
    """Name and compute capability of each GPU."""


@dataclass(frozen=True)
class Fit:
    """Whether driver and torch fit each other."""

    well: bool
    text: str


def driver_version() -> str:
    """Return the version of this machine's NVIDIA driver, 580.95.05 say; empty if it has none."""
    try:
        found = _VERSION.search(_DRIVER_FILE.read_text(encoding="utf-8", errors="replace"))
        if found:
            return found[1]
    except OSError:
        pass
    try:  # Windows' Linux has no such file
        asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        shown = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=30).stdout.split()
    except (OSError, subprocess.SubprocessError):
        return ""
    return shown[0] if shown and re.fullmatch(r"\d+(\.\d+)+", shown[0]) else ""


def fit(driver: str, torch: Torch) -> Fit:
    """Return whether a driver runs torch's builds, and what to do if it does not.

    What torch can use is believed, with any driver: NVIDIA has packages that let older ones run newer CUDA.
    """
    if not driver and not torch.usable:
        return Fit(True, "no NVIDIA driver: trials run on the CPU")
    if torch.cuda is None:
        advice = (
            f"`make install CUDA={_newest(driver)}`" if _newest(driver) else f"a driver from {OLDEST_DRIVER[12]} on"
        )
        return Fit(False, f"driver {driver}, but torch {torch.version} is built for CPUs; install {advice}")
    if torch.usable:
        return _code_for(driver, torch)
    major = int(torch.cuda.partition(".")[0])
    built = f"torch {torch.version} is built for CUDA {torch.cuda}"
    oldest = OLDEST_DRIVER.get(major)
    if oldest and _numbers(driver) < _numbers(oldest):
        other = f"`make install CUDA={_newest(driver)}`, or " if _newest(driver) else ""
        return Fit(False, f"driver {driver} is too old: {built}; {other}install a driver from {oldest} on")
    reasons = "does `nvidia-smi` show it, is it in CUDA_VISIBLE_DEVICES, was the container given it (`--gpus all`)?"
    return Fit(False, f"driver {driver} runs it ({built}), but torch sees no GPU; {reasons}")


def _code_for(driver: str, torch: Torch) -> Fit:
    """Return whether torch has code for the GPUs that there are: builds for newer CUDA leave out old kinds."""
    oldest = min((_kind(name) for name in torch.built_for), default=(0, 0))
    for name, capability in torch.gpus:
        if capability < oldest:
            what = f"{name} (compute capability {_dotted(capability)}) is too old for torch {torch.version}"
            return Fit(
                False, f"{what}, whose code begins with {_dotted(oldest)}; `make install CUDA=12` has an older one"
            )
    return Fit(True, f"driver {driver or 'of unknown version'} runs torch {torch.version} for CUDA {torch.cuda}")


def _kind(name: str) -> tuple[int, int]:
    """Return the compute capability behind `sm_75`, `sm_90a` or `compute_120`."""
    digits = re.sub(r"\D", "", name.partition("_")[2])
    return int(digits[:-1] or 0), int(digits[-1:] or 0)


def _dotted(capability: tuple[int, int]) -> str:
    return f"{capability[0]}.{capability[1]}"


def _newest(driver: str) -> int:
    """Return the newest CUDA with a lock that a driver runs; 0 if it runs none."""
    return max((cuda for cuda, oldest in OLDEST_DRIVER.items() if _numbers(driver) >= _numbers(oldest)), default=0)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")) if version else ()
