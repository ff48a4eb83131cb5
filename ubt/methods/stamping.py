"""Triggers stamped by the batch, on the device that the model computes on: no triggered data set lies in memory.

What an attack does to every image alike (`Attack.change`) is worked out once for each size and applied by torch, bit
for bit as numpy does it where both compute on a CPU. What it draws anew for each image, its own `stamp` puts on.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ubt.attacks import Attack, Images, Rows
from ubt.attacks.changes import WHITE, Mixed, Moved, Pasted, Step
from ubt.common.progress import beat

_BLOCK = 64
"""Images that are floats at a time: a few copies of them stay in a CPU's cache, or hardly count on a GPU."""

Applied = Callable[[Tensor], None]
"""Changes images `[N, H, W, 3]` uint8 in place."""


class Stamper:
    """Stamps the trigger of one attack."""

    def __init__(self, attack: Attack, device: torch.device) -> None:
        self._attack = attack
        self._device = device
        self._steps: dict[tuple[int, int], tuple[Applied, ...] | None] = {}

    def __call__(self, images: Tensor, rows: Rows) -> Tensor:
        """Return triggered copies of `images[N, H, W, 3]` uint8 on the device, which are `rows[N]` of the data."""
        size = int(images.shape[1]), int(images.shape[2])
        if size not in self._steps:
            self._steps[size] = self._applied(*size)
        steps = self._steps[size]
        if steps is None:
            return torch.from_numpy(self._attack.stamp(images.cpu().numpy(), rows)).to(self._device)
        triggered = images.to(self._device, copy=True)
        for block in torch.split(triggered, _BLOCK):
            beat()
            for step in steps:
                step(block)
        return triggered

    def on(self, images: Images, rows: Rows) -> Images:
        """Return triggered copies of `images[N, H, W, 3]` that lie in the memory of this process, and so do they."""
        found: Images = self(torch.from_numpy(np.array(images)), rows).cpu().numpy()
        return found

    def _applied(self, height_px: int, width_px: int) -> tuple[Applied, ...] | None:
        change = self._attack.change(height_px, width_px) if says_what_it_does(type(self._attack)) else None
        return None if change is None else tuple(_on(step, self._device) for step in change)


def says_what_it_does(attack: type[Attack]) -> bool:
    """Return whether an attack's `change` is of its `stamp`: not where a subclass has another `stamp` alone."""
    defined = [name for kind in attack.__mro__ for name in ("change", "stamp") if name in vars(kind)]
    return defined[0] == "change"


def _on(step: Step, device: torch.device) -> Applied:
    """Return a step as it is taken on a device."""
    if isinstance(step, Pasted):
        return _pasted(step, device)
    return _mixed(step, device) if isinstance(step, Mixed) else _moved(step, device)


def _pasted(step: Pasted, device: torch.device) -> Applied:
    pixels = _there(step.pixels, device)
    height, width = pixels.shape[:2]

    def paste(images: Tensor) -> None:
        images[:, step.top : step.top + height, step.left : step.left + width] = pixels

    return paste


def _mixed(step: Mixed, device: torch.device) -> Applied:
    keep, added = _there(step.keep, device), _there(step.added, device)
    white = _there(np.asarray(WHITE), device)  # a tensor: by a number, CUDA multiplies with its inverse instead

    def mix(images: Tensor) -> None:
        part = images
        if step.side_px is not None:
            part = images[:, step.top : step.top + step.side_px, step.left : step.left + step.side_px]
        floats = part.float()
        if step.white:
            floats.div_(white)
        floats.mul_(keep).add_(added)
        if step.white:
            floats.clamp_(0, 1).mul_(white)
        elif step.rounded:
            floats.round_()
        part.copy_(floats.clamp_(0, 255))

    return mix


def _moved(step: Moved, device: torch.device) -> Applied:
    width = step.top.shape[1]
    corner = _there(step.top * width + step.left, device).flatten()
    down, right = _there(step.down, device), _there(step.right, device)
    up, left = 1 - down, 1 - right

    def move(images: Tensor) -> None:
        flat = images.float().flatten(1, 2)  # `[N, H·W, 3]`

        def read(away: int) -> Tensor:
            return flat.index_select(1, corner + away).view(images.shape)

        upper = read(0).mul_(left).add_(read(1).mul_(right))
        lower = read(width).mul_(left).add_(read(width + 1).mul_(right))
        floats = upper.mul_(up).add_(lower.mul_(down))
        images.copy_((floats.round_() if step.rounded else floats).clamp_(0, 255))

    return move


def _there(values: NDArray[np.generic], device: torch.device) -> Tensor:
    return torch.from_numpy(np.array(values)).to(device)
