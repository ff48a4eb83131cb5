"""How sure a front is: chances, the band, and what differs from the choice, against plain loops and known cases."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.findings import find
from analysis.points.configurations import configurations
from analysis.points.doubt import attainment, differ, nearest_the_front, on_front, resampled
from analysis.points.geometry import non_dominated

SAMPLES = "defense.unlearn_samples"


def draws(seed, resamples=20, points=7):
    rng = np.random.default_rng(seed)
    return rng.random((resamples, points)), rng.random((resamples, points))


@given(st.integers(0, 1000))
def test_each_draw_has_the_front_of_its_points(seed):
    asr, ca = draws(seed)
    found = on_front(asr, ca)
    for a, c, members in zip(asr, ca, found, strict=True):
        assert np.array_equal(members, non_dominated(np.stack([a, c], axis=1)))


@given(st.integers(0, 1000))
def test_the_band_lies_where_the_fronts_of_the_draws_do(seed):
    asr, ca = draws(seed)
    band = attainment(asr, ca)
    for at in (0, 50, 100):
        reached = [
            max([c for a, c in zip(*draw, strict=True) if a <= band.asr[at]], default=0.0)
            for draw in zip(asr, ca, strict=True)
        ]
        assert (band.low[at], band.high[at]) == pytest.approx(np.quantile(reached, (0.025, 0.975)))
    assert list(band.low) == sorted(band.low)


def test_resampled_rates_of_one_seed_spread_as_wide_as_wilsons_interval(rates):
    found = rates(0.1, 0.8)
    asr, ca = resampled([{0: found}], np.random.default_rng(0), 20_000)
    assert np.quantile(asr, (0.025, 0.975)) == pytest.approx((found.asr_low, found.asr_high), abs=0.002)
    assert np.quantile(ca, (0.025, 0.975)) == pytest.approx((found.ca_low, found.ca_high), abs=0.002)


def test_seeds_are_drawn_for_all_models_together(rates):
    by_seed = {seed: rates(asr, 0.8, images=10**6) for seed, asr in enumerate([0.1, 0.5, 0.9])}
    better = {seed: rates(asr - 0.05, 0.8, images=10**6) for seed, asr in enumerate([0.1, 0.5, 0.9])}
    asr, _ = resampled([by_seed, better], np.random.default_rng(0))
    assert asr[:, 0].std() == pytest.approx(np.std([0.1, 0.5, 0.9]) / 3**0.5, rel=0.05)
    assert (asr[:, 1] < asr[:, 0]).all()
    one_seed, _ = resampled([by_seed, {2: by_seed[2]}], np.random.default_rng(0))
    assert one_seed[:, 1].mean() == pytest.approx(0.9, abs=0.001)  # also where another seed was drawn


def test_of_two_models_that_are_the_same_neither_has_the_front_for_itself(trial, run_of):
    found = find(
        run_of(
            *(trial(i, asr=0.1, ca=0.81, changes={SAMPLES: i}) for i in range(2)),
            trial(2, asr=0.9, ca=0.5, changes={SAMPLES: 9}),
        )
    )
    chances = found.doubt.chances
    assert chances["trial-0"] == pytest.approx(0.75, abs=0.05)  # better in one of two rates
    assert chances["trial-1"] == pytest.approx(0.75, abs=0.05)
    assert chances["trial-2"] == 0
    assert found.doubt.alike == {"trial-1"}


def test_what_differs_from_the_choice_is_not_like_it(trial, run_of):
    found = find(run_of(trial(0, asr=0.1, ca=0.805), trial(1, asr=0.3, ca=0.82, changes={SAMPLES: 8})))
    assert found.chosen.name == "trial-0"
    assert found.doubt.alike == frozenset()
    assert found.doubt.split == "test"
    assert find(run_of(trial(0, state="FAILED"))).doubt.chances == {}


def test_a_difference_that_seeds_agree_on_counts_and_one_between_them_does_not(trial):
    def pair(left, right):
        records = [trial(i, seed=i, asr=asr) for i, asr in enumerate(left)]
        records += [trial(9 + i, seed=i, asr=asr, changes={SAMPLES: 8}) for i, asr in enumerate(right)]
        return configurations(records)

    assert differ(*pair([0.1, 0.5, 0.9], [0.141, 0.540, 0.939]), "val")
    assert not differ(*pair([0.1, 0.5, 0.9], [0.3, 0.4, 1.0]), "val")
    assert differ(*pair([0.1], [0.2]), "val")
    assert not differ(*pair([0.1], [0.11]), "val")


def test_of_many_candidates_those_nearest_the_front_are_resampled(trial):
    found = configurations([trial(i, asr=0.01 * i, ca=0.8, changes={SAMPLES: i}) for i in range(9)])
    assert [one.number for one in nearest_the_front(found, most=3)] == [0, 1, 2]
    assert len(nearest_the_front(found)) == 9


@settings(max_examples=20)
@given(st.integers(1, 8), st.integers(1, 3))
def test_every_draw_has_a_front(trial, run_of, models, seeds):
    records = [
        trial(3 * i + s, seed=s, asr=0.1 * i, ca=0.7 + 0.01 * i + 0.001 * s, changes={SAMPLES: i})
        for i in range(models)
        for s in range(seeds)
    ]
    chances = find(run_of(*records)).doubt.chances
    assert sum(chances.values()) >= 1
    assert all(0 <= chance <= 1 for chance in chances.values())
