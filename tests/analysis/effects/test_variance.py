"""Shares of variance of sums whose parts are known by construction."""

import numpy as np
import pytest

from analysis.effects.variance import variance_shares


def test_shares_are_those_of_the_parts_of_a_sum() -> None:
    rng = np.random.default_rng(0)
    two, three = rng.choice([0.0, 1.0], 2000), rng.choice(["a", "b", "c"], 2000)
    part_of = {"a": 0.0, "b": 3.0, "c": 0.0}
    rate = 2 * two + np.array([part_of[word] for word in three])
    shares = variance_shares({"two": list(two), "three": list(map(str, three)), "none": list(rng.random(2000))}, rate)
    # Values count once each: the variance of {0, 2} is 1, that of {0, 3, 0} is 2.
    assert shares == pytest.approx({"two": 1 / 3, "three": 2 / 3, "none": 0}, abs=1e-6)


def test_what_two_knobs_do_together_is_of_neither() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.choice([-1.0, 1.0], 4000), rng.choice([-1.0, 1.0], 4000)
    shares = variance_shares({"a": list(a), "b": list(b)}, a * b)
    assert max(shares.values()) < 0.01


def test_knobs_that_a_search_moved_together_are_told_apart() -> None:
    rng = np.random.default_rng(2)
    cause = rng.random(300)
    beside = np.clip(cause + rng.normal(0, 0.15, 300), 0, 1)
    shares = variance_shares({"cause": list(cause), "beside": list(beside)}, cause + rng.normal(0, 0.02, 300))
    assert shares["cause"] > 0.9
    assert shares["beside"] < 0.02


def test_chance_alone_is_no_knobs_share() -> None:
    means = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        columns = {name: list(rng.choice([1.0, 2.0, 3.0, 4.0], 24)) for name in "abcd"}
        means.append(np.mean(list(variance_shares(columns, rng.normal(0, 1, 24)).values())))
    assert np.mean(means) < 0.06


@pytest.mark.parametrize("rate", [0.0, 0.1, 1.0])
def test_a_rate_that_is_always_the_same_has_no_shares(rate: float) -> None:
    shares = variance_shares({"a": [1.0, 2.0, 3.0] * 5, "b": ["x", "y", "z"] * 5}, np.full(15, rate))
    assert shares == {"a": 0.0, "b": 0.0}


def test_fewer_trials_than_terms_give_shares_all_the_same() -> None:
    rng = np.random.default_rng(3)
    columns = {f"k{number}": list(map(str, rng.integers(0, 6, 12))) for number in range(4)}
    shares = variance_shares(columns, rng.normal(0, 1, 12))
    assert all(0 <= share <= 1 for share in shares.values())
    assert sum(shares.values()) <= 1 + 1e-9
