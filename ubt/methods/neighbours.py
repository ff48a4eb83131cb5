"""Near neighbours of every point among all others, exact and in blocks on the device; and what tells outliers by them.

Squared distances to all points come from one matrix product a block of rows. Their rounding error is of the order of
1e-7 of the vectors' squared length, too much for points that nearly coincide: they only choose candidates, some more
than are asked for, whose distances are then worked out from differences in float64. Points of which the error may have
kept a neighbour from being a candidate are looked at again in float64. Nothing of the size N² is ever held.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ubt.common.progress import beat

_SPARE = 8
"""Candidates beyond those asked for: what rounding may put in a wrong order at the edge."""
_GROUP = 32
"""Points of which first only the nearest is looked at: the k nearest lie in the k groups whose nearest are nearest."""
_ELEMENTS = {"cpu": 2**26, "cuda": 2**29}
"""Distances that are held at a time: 256 MiB here, 2 GiB on a GPU."""
_ROWS = {"cpu": 256, "cuda": 4096}
"""Most points whose neighbours are looked for at a time: differences to candidates are to fit the processor's cache."""
_PART = 2**15
"""Points to which distances are worked out in float64 at a time, for those few that float32 leaves in doubt."""
_ROUNDING = 2.0**-21
"""Error of a squared distance from products in float32, in squared lengths: four times the spacing of numbers."""
_TINY = 1e-10
"""Distance that points are taken to have which coincide, so that densities and dimensions stay finite."""
_FLATTEST = 1e-3
"""Smallest mean of log(r_k / r_i): a local dimension of at most 1,000."""


@dataclass(frozen=True)
class Neighbours:
    """The k nearest other points of each of N points, nearest first."""

    distances: Tensor
    """`[N, k]` float64, Euclidean."""
    indices: Tensor
    """`[N, k]` int64."""

    @property
    def radius(self) -> Tensor:
        """Distance of the k-th nearest, `[N]` float64, ≥ 0 (Ramaswamy et al., SIGMOD 2000)."""
        return self.distances[:, -1]


def nearest_neighbours(points: Tensor, count: int) -> Neighbours:
    """Return the `count` nearest other points of each of `points[N, D]`, on their device; at most N − 1 of them.

    Time grows with N² · D.
    """
    kind = points.device.type
    rows = min(_ROWS[kind], max(1, _ELEMENTS[kind] // len(points)))
    index = _Index(points, min(count, len(points) - 1))
    found = []
    for start in range(0, len(points), rows):
        beat()
        found.append(index.nearest(start, min(start + rows, len(points))))
    return Neighbours(*(torch.cat(part) for part in zip(*found, strict=True)))


class _Index:
    """The points; and as columns the same around their mean, filled up to whole groups with points infinitely far."""

    def __init__(self, points: Tensor, count: int) -> None:
        self._points, self._count = points, count
        self._candidates = min(count + _SPARE, len(points) - 1)
        self._group = _GROUP if len(points) >= _GROUP * self._candidates else 1
        missing = -len(points) % self._group
        self._mean = points.double().mean(dim=0)
        parts = (points[start : start + _PART] for start in range(0, len(points), _PART))
        columns = torch.cat([(part.double() - self._mean).float() for part in parts])
        squares = columns.square().sum(dim=1)
        self._columns = torch.cat([columns, columns.new_zeros(missing, columns.shape[1])]).T
        self._squares = torch.cat([squares, squares.new_full((missing,), math.inf)])
        self._errors = _ROUNDING * (squares + squares.max()).double()

    def nearest(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Return distances and indices, `[B, k]` each, of the nearest others of points `start` to `stop`."""
        rows = torch.arange(start, stop, device=self._points.device)
        block = torch.addmm(self._squares, self._columns[:, start:stop].T, self._columns, alpha=-2)
        block[rows - start, rows] = math.inf
        candidates = self._best(block)
        furthest = block.gather(1, candidates).amax(dim=1).double() + self._squares[start:stop].double()
        distances, candidates = self._measured(rows, candidates)
        # What is no candidate is at least so far; where that is not further than the k-th, it may be one of the k.
        unsure = distances[:, self._count - 1].square() > furthest - self._errors[start:stop]
        if self._candidates < len(self._points) - 1 and unsure.any():
            distances[unsure], candidates[unsure] = self._measured(rows[unsure], self._best_in_double(rows[unsure]))
        return distances[:, : self._count], candidates[:, : self._count]

    def _measured(self, rows: Tensor, candidates: Tensor) -> tuple[Tensor, Tensor]:
        """Return the distances of `candidates[B, C]` of `rows[B]`, nearest first, and the candidates in that order."""
        candidates = candidates.sort(dim=1).values
        differences = self._points[candidates].double() - self._points[rows, None].double()
        distances, order = torch.linalg.vector_norm(differences, dim=2).sort(dim=1, stable=True)
        return distances, candidates.gather(1, order)

    def _best(self, block: Tensor) -> Tensor:
        """Return the columns of the smallest values of each row of `block[B, M]`, in no order."""
        groups = block.view(len(block), self._group, -1)
        width = groups.shape[2]
        near = groups.amin(dim=1).topk(self._candidates, largest=False, sorted=False).indices
        members = near[:, None] + width * torch.arange(self._group, device=block.device)[:, None]
        members = members.flatten(1)
        best = block.gather(1, members).topk(self._candidates, largest=False, sorted=False).indices
        return members.gather(1, best)

    def _best_in_double(self, rows: Tensor) -> Tensor:
        """Return the candidates of `rows[B]`, `[B, C]`, from products in float64, a part of all points at a time."""
        mine = self._points[rows].double() - self._mean
        nearest = mine.new_full((len(rows), self._candidates), math.inf)
        found = torch.zeros_like(nearest, dtype=torch.int64)
        for start in range(0, len(self._points), _PART):
            part = self._points[start : start + _PART].double() - self._mean
            numbers = torch.arange(start, start + len(part), device=rows.device)
            block = torch.addmm(part.square().sum(dim=1), mine, part.T, alpha=-2)
            block[rows[:, None] == numbers] = math.inf
            merged = torch.cat([nearest, block], dim=1)
            nearest, best = merged.topk(self._candidates, largest=False)
            found = torch.cat([found, numbers.expand(len(rows), -1)], dim=1).gather(1, best)
        return found


def outlier_factors(near: Neighbours) -> Tensor:
    """Return the local outlier factor of each point, `[N]` > 0, about 1 inside a cluster.

    Source: Breunig et al., SIGMOD 2000, definitions 5 to 7.
    """
    reach = torch.maximum(near.distances, near.radius[near.indices])
    density = 1 / (reach.mean(dim=1) + _TINY)
    return density[near.indices].mean(dim=1) / density


def local_dimensions(near: Neighbours) -> Tensor:
    """Return the local intrinsic dimension at each point, `[N]` > 0, by maximum likelihood: 1 / mean(log(r_k / r_i)).

    Source: Levina and Bickel, NeurIPS 2004; Amsaleg et al., KDD 2015, equation 10. Neighbours that coincide with the
    point count as 1e-10 away, and no dimension is above 1,000.
    """
    distances = near.distances.clamp(min=_TINY)
    return 1 / (distances[:, -1:] / distances).log().mean(dim=1).clamp(min=_FLATTEST)


def dimension_aware_outlierness(near: Neighbours) -> Tensor:
    """Return the logarithm of the dimensionality-aware outlierness of each point, `[N]`, about 0 inside a cluster.

    That is the mean over its neighbours o of (r_k / r_k(o)) to the power of the local dimension at o. Source: Anderberg
    et al., "Dimensionality-Aware Outlier Detection", SDM 2024 (arXiv 2401.05453). The logarithm orders points alike and
    does not overflow.
    """
    radius = near.radius.clamp(min=_TINY).log()
    powers = local_dimensions(near)[near.indices] * (radius[:, None] - radius[near.indices])
    return powers.logsumexp(dim=1) - math.log(powers.shape[1])
