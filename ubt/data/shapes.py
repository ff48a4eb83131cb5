"""The objects of generated scenes: each class is a few polygons in the unit square [−1, 1]², y downwards."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]


@dataclass(frozen=True)
class Part:
    """One polygon `[P, 2]` and how bright it is compared with the object's colour."""

    points: Points
    shade: float = 1.0


def _polygon(*points: tuple[float, float], shade: float = 1.0) -> Part:
    return Part(np.array(points), shade)


def _box(left: float, top: float, right: float, bottom: float, shade: float = 1.0) -> Part:
    return _polygon((left, top), (right, top), (right, bottom), (left, bottom), shade=shade)


def _arc(x: float, y: float, width: float, height: float, start: float = 0.0, stop: float = 2.0) -> Points:
    """Return points on an ellipse around (x, y) from angle `start`·π to `stop`·π."""
    angles = np.linspace(start * np.pi, stop * np.pi, 17)
    return np.stack([x + width * np.cos(angles), y + height * np.sin(angles)], axis=1)


def _oval(x: float, y: float, width: float, height: float, shade: float = 1.0) -> Part:
    return Part(_arc(x, y, width, height), shade)


def _star(points: int, inner: float) -> Part:
    angles = np.arange(2 * points) * np.pi / points - np.pi / 2
    radii = np.where(np.arange(2 * points) % 2 == 0, 1.0, inner)
    return Part(np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1))


def _crescent() -> Part:
    outer, inner = _arc(0, -0.5, 1.0, 1.3, 0.05, 0.95), _arc(0, -0.75, 0.85, 0.9, 0.95, 0.05)
    return Part(np.concatenate([outer, inner]))


OBJECTS: dict[str, tuple[Part, ...]] = {
    "banana": (_crescent(), _box(-1.05, -0.6, -0.85, -0.3, 0.4)),
    "apple": (_oval(0, 0.15, 0.8, 0.75), _box(-0.06, -1, 0.1, -0.5, 0.4)),
    "tree": (_polygon((0, -1), (0.8, 0.4), (-0.8, 0.4)), _box(-0.18, 0.4, 0.18, 1, 0.5)),
    "house": (_box(-0.75, -0.1, 0.75, 0.95), _polygon((0, -1), (0.95, -0.1), (-0.95, -0.1), shade=0.6)),
    "car": (
        _box(-1, -0.1, 1, 0.45),
        _box(-0.5, -0.55, 0.5, -0.1, 0.75),
        _oval(-0.55, 0.5, 0.27, 0.27, 0.3),
        _oval(0.55, 0.5, 0.27, 0.27, 0.3),
    ),
    "star": (_star(5, 0.42),),
    "heart": (
        _oval(-0.42, -0.35, 0.5, 0.5),
        _oval(0.42, -0.35, 0.5, 0.5),
        _polygon((-0.88, -0.15), (0.88, -0.15), (0, 0.95)),
    ),
    "fish": (
        _oval(-0.2, 0, 0.75, 0.48),
        _polygon((0.4, 0), (1, -0.5), (1, 0.5)),
        _oval(-0.6, -0.1, 0.1, 0.1, 0.2),
    ),
    "flower": (
        *(_oval(0.55 * np.cos(a), 0.55 * np.sin(a), 0.36, 0.36) for a in np.arange(5) * 2 * np.pi / 5),
        _oval(0, 0, 0.3, 0.3, 0.45),
    ),
    "boat": (
        _polygon((-1, 0.3), (1, 0.3), (0.6, 0.85), (-0.6, 0.85), shade=0.7),
        _polygon((0, -1), (0.7, 0.15), (0, 0.15)),
    ),
    "mushroom": (Part(_arc(0, 0.05, 0.95, 0.95, 1.0, 2.0)), _box(-0.25, 0.05, 0.25, 0.95, 0.7)),
    "ladder": (
        _box(-0.55, -1, -0.35, 1),
        _box(0.35, -1, 0.55, 1),
        *(_box(-0.5, y, 0.5, y + 0.16) for y in (-0.75, -0.25, 0.25, 0.7)),
    ),
}
