import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ubt.common.statistics import auroc, bootstrap_interval, wilson_interval


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_wilson_interval_is_that_of_the_formula(rate):
    successes, trials = rate
    z, p = NormalDist().inv_cdf(0.975), successes / trials
    centre = (p + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * math.sqrt(p * (1 - p) / trials + z * z / (4 * trials * trials))
    assert wilson_interval(successes, trials) == pytest.approx((centre - half, centre + half), abs=1e-12)


def test_the_wilson_interval_of_a_known_rate():
    # Newcombe (1998), table I: 81 of 263 is 0.2553 to 0.3662.
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)


@pytest.mark.parametrize(("successes", "edge"), [(0, 0), (48, 1)])
def test_the_wilson_interval_stays_within_0_and_1_and_is_never_empty(successes, edge):
    low, high = wilson_interval(successes, 48)
    assert 0 <= low < high <= 1
    assert (low, high)[edge] == pytest.approx(edge, abs=1e-12)


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (1, 0), (-1, 5), (6, 5), (0, -3)])
def test_what_is_no_rate_has_no_interval(successes, trials):
    with pytest.raises(ValueError, match="is not a rate"):
        wilson_interval(successes, trials)


# Few different values, so that there are ties.
SCORED = st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=40).filter(
    lambda pairs: 0 < sum(positive for _, positive in pairs) < len(pairs)
)


@given(SCORED)
def test_auroc_counts_pairs_and_ties_half(pairs):
    ups, downs = ([s for s, positive in pairs if positive is kind] for kind in (True, False))
    wins = sum((up > down) + 0.5 * (up == down) for up in ups for down in downs)
    scores, positive = np.array([float(s) for s, _ in pairs]), np.array([p for _, p in pairs])
    assert auroc(scores, positive) == pytest.approx(wins / (len(ups) * len(downs)))


@pytest.mark.parametrize("positive", [[True, True], [False, False], []])
def test_auroc_of_one_group_alone_is_nan(positive):
    assert math.isnan(auroc(np.arange(len(positive), dtype=float), np.array(positive, dtype=bool)))


def test_infinite_scores_rank_first_and_a_score_that_is_no_number_has_no_auroc():
    positive = np.array([True, True, False, False])
    assert auroc(np.array([np.inf, 0.5, 0.1, -np.inf], dtype=np.float32), positive) == 1.0
    assert math.isnan(auroc(np.array([0.4, np.nan, 0.1, 0.2]), positive))


def test_the_bootstrap_interval_of_four_values_is_the_one_counted_by_hand():
    # Of 4⁴ samples 1 has mean 4, 12 have mean 3: P(mean ≥ 3) = 0.051; and P(mean = 0) = 81/256.
    assert bootstrap_interval([0, 0, 0, 4], np.random.default_rng(0)) == (0.0, 3.0)


def test_the_bootstrap_interval_of_many_values_is_nearly_the_normal_one():
    values = np.random.default_rng(1).normal(5, 2, size=400)
    low, high = bootstrap_interval(values.tolist(), np.random.default_rng(0))
    half = 1.96 * values.std() / 20
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.02)


def test_the_bootstrap_interval_of_equal_values_is_a_point_and_depends_on_the_generator_alone():
    assert bootstrap_interval([0.3] * 3, np.random.default_rng(0)) == pytest.approx((0.3, 0.3))
    first, again = (bootstrap_interval([1, 2, 5], np.random.default_rng(3)) for _ in range(2))
    assert first == again


def test_a_single_value_is_its_own_bootstrap_interval():
    assert bootstrap_interval([0.3], np.random.default_rng(0)) == (0.3, 0.3)


def test_no_values_have_no_bootstrap_interval():
    with pytest.raises(ValueError, match="no values"):
        bootstrap_interval([], np.random.default_rng(0))
