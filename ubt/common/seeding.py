"""Randomness is passed in: every generator is derived from a seed and the purpose it serves.

Deriving instead of sharing one stream means that adding a random draw in one place changes nothing
elsewhere, and that epoch 4 draws the same numbers whether or not epochs 1–3 ran in this process.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def derive(seed: int, *purpose: str | int) -> int:
    """Return a 63-bit seed for one purpose, e.g. `derive(0, "overfit", "order", 3)`."""
    text = "\x1f".join([str(seed), *map(str, purpose)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def numpy_generator(seed: int, *purpose: str | int) -> np.random.Generator:
    """Return a numpy generator for one purpose."""
    return np.random.default_rng(derive(seed, *purpose))


def torch_generator(seed: int, *purpose: str | int) -> torch.Generator:
    """Return a CPU torch generator for one purpose."""
    import torch  # noqa: PLC0415 — planning uses this module's other half without torch

    return torch.Generator().manual_seed(derive(seed, *purpose))
