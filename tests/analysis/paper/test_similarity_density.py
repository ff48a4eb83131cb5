import math

import numpy as np
import pytest
from scipy.stats import gaussian_kde

from analysis.paper.density import LEAST_BANDWIDTH, Separation, bandwidth, density, panel_lines

RNG = np.random.default_rng(3)


def area(values):
    grid, heights = density(np.asarray(values, dtype=float))
    return heights.sum() * (grid[1] - grid[0])


@pytest.mark.parametrize("count", [50, 2_000])
def test_far_from_the_ends_it_is_the_usual_kernel_density_estimate(count):
    values = RNG.normal(0.1, 0.12, count)
    grid, heights = density(values)
    expected = gaussian_kde(values, bandwidth(values) / np.std(values, ddof=1))(grid)
    np.testing.assert_allclose(heights, expected, atol=0.02 * expected.max())


def test_the_bandwidth_is_silvermans():
    values = RNG.normal(0, 0.2, 500)
    q1, q3 = np.percentile(values, (25, 75))
    assert bandwidth(values) == pytest.approx(0.9 * min(values.std(ddof=1), (q3 - q1) / 1.34) * 500**-0.2)


@pytest.mark.parametrize(
    "values", [[0.3], [0.3, 0.3, 0.3], [-1.0], [1.0] * 9, [0.0, 0.9], [1.0000001, -1.0000001], RNG.uniform(0.8, 1, 300)]
)
def test_any_group_has_area_one_however_small_or_near_the_ends(values):
    assert area(values) == pytest.approx(1.0, abs=1e-6)


def test_equal_values_are_a_narrow_peak():
    grid, heights = density(np.full(40, 0.5))
    assert grid[heights.argmax()] == pytest.approx(0.5, abs=0.01)
    assert bandwidth(np.full(40, 0.5)) == LEAST_BANDWIDTH


def test_half_the_values_alike_are_not_smoothed_away():
    values = np.r_[np.full(60, 0.5), RNG.uniform(-1, 1, 20)]
    assert bandwidth(values) >= LEAST_BANDWIDTH


def test_no_values_have_no_density():
    with pytest.raises(ValueError, match="no values"):
        density(np.zeros(0))


def test_auroc_is_the_share_of_rightly_ordered_pairs():
    similarities, poisoned = np.array([0.9, 0.4, 0.4, 0.1]), np.array([True, True, False, False])
    assert Separation(similarities, poisoned).auroc == pytest.approx((1 + 1 + 0.5 + 1) / 4)
    before = np.array([0.1, 0.1, 0.9, 0.9])
    assert Separation(similarities, poisoned, before).auroc_before == 0.0


def test_a_panel_tells_its_numbers():
    separation = Separation(np.r_[np.ones(2), np.zeros(1500)], np.arange(1502) < 2, np.zeros(1502))
    assert panel_lines(separation) == ("AUROC 1.000", "(0.500 before)", "2 poisoned", "1,500 clean")


def test_a_panel_with_pairs_of_one_kind_says_so():
    alone = Separation(np.ones(3), np.zeros(3, dtype=bool), np.zeros(3))
    assert math.isnan(alone.auroc)
    assert panel_lines(alone) == ("of one kind: no AUROC", "0 poisoned", "3 clean")
