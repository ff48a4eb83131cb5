"""Near neighbours are scikit-learn's, with blocks of any size, and outliers are those that definitions say."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import LocalOutlierFactor, NearestNeighbors

from ubt.methods import neighbours
from ubt.methods.neighbours import (
    dimension_aware_outlierness,
    local_dimensions,
    nearest_neighbours,
    outlier_factors,
)

FACTORS = (outlier_factors, local_dimensions, dimension_aware_outlierness)


def points(count, width, seed=0, spread=1.0):
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(5, width, generator=generator)[torch.randint(5, (count,), generator=generator)]
    return torch.nn.functional.normalize(centres + spread * torch.randn(count, width, generator=generator))


@pytest.mark.parametrize("rows", [7, 256], ids="rows={}".format)
@pytest.mark.parametrize("count", [1, 16])
@pytest.mark.parametrize("spread", [1.0, 1e-3], ids=["apart", "in tight clusters"])
def test_neighbours_are_scikit_learns(count, rows, spread, monkeypatch):
    """In tight clusters squared distances are far below the rounding of a product in float32."""
    monkeypatch.setitem(neighbours._ROWS, "cpu", rows)
    some = points(1500, 24, spread=spread)
    expected, others = NearestNeighbors(n_neighbors=count).fit(some.numpy().astype(float)).kneighbors()
    near = nearest_neighbours(some, count)
    np.testing.assert_allclose(near.distances, expected, rtol=1e-6, atol=1e-9)
    np.testing.assert_array_equal(near.indices, others)


def test_the_outlier_factor_is_scikit_learns():
    some = points(300, 3, seed=1)
    expected = -LocalOutlierFactor(n_neighbors=7).fit(some.numpy().astype(float)).negative_outlier_factor_
    np.testing.assert_allclose(outlier_factors(nearest_neighbours(some, 7)), expected, rtol=1e-5)


@pytest.mark.parametrize("dimension", [2, 6])
def test_the_local_dimension_is_that_of_what_points_lie_on(dimension):
    flat = torch.rand(4000, dimension, generator=torch.Generator().manual_seed(2))
    inside = torch.cat([flat, torch.zeros(len(flat), 12 - dimension)], dim=1)
    found = local_dimensions(nearest_neighbours(inside, 50))
    assert found.median() == pytest.approx(dimension, rel=0.2)


def test_the_dimension_aware_outlierness_is_the_mean_of_ratios_of_distances_to_the_power_of_the_dimension():
    near = nearest_neighbours(points(80, 4, seed=3), 5)
    distances, indices = near.distances.numpy(), near.indices.numpy()
    dimension = [1 / np.mean([np.log(row[-1] / each) for each in row]) for row in distances]
    expected = [
        np.mean([(distances[at, -1] / distances[other, -1]) ** dimension[other] for other in indices[at]])
        for at in range(80)
    ]
    np.testing.assert_allclose(dimension_aware_outlierness(near).exp(), expected, rtol=1e-6)


@pytest.mark.parametrize("factor", [outlier_factors, dimension_aware_outlierness, lambda near: near.radius])
def test_outliers_stand_out(factor):
    generator = torch.Generator().manual_seed(0)
    some = torch.cat(
        [torch.randn(60, 4, generator=generator), torch.randn(3, 4, generator=generator) + 30 * torch.eye(4)[:3]]
    )
    assert set(factor(nearest_neighbours(some, 5)).argsort()[-3:].tolist()) == {60, 61, 62}


@pytest.mark.parametrize("factor", FACTORS)
def test_points_that_coincide_leave_numbers_finite(factor):
    some = torch.cat([torch.ones(40, 8), points(40, 8)])
    assert factor(nearest_neighbours(some, 16)).isfinite().all()


def test_there_are_no_more_neighbours_than_other_points():
    assert torch.equal(nearest_neighbours(points(5, 3), 99).distances, nearest_neighbours(points(5, 3), 4).distances)
