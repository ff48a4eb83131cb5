import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ubt.common.statistics import auroc, t_interval, t_test, wilson_interval


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


@given(st.lists(st.floats(0, 1), min_size=2, max_size=9))
def test_the_t_interval_is_that_of_the_t_test(values):
    assume(len(set(values)) > 1 and np.std(values) > 1e-6)
    test = t_test(values)
    assert t_interval(values) == pytest.approx((test.low, test.high), abs=1e-9)


def test_the_t_interval_holds_the_mean_of_three_values_95_times_in_100():
    draws = np.random.default_rng(0).normal(5, 2, size=(4000, 3))
    held = [low < 5 < high for low, high in map(t_interval, draws.tolist())]
    assert np.mean(held) == pytest.approx(0.95, abs=0.015)


def test_one_value_has_no_t_interval():
    with pytest.raises(ValueError, match="two values"):
        t_interval([0.3])
