"""The rule by which a trial ends before its last epoch: ranks, rungs, and the floor under clean accuracy."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ubt.trials.rates import Rates
from ubt.trials.record import EpochRecord
from ubt.trials.stopping import (
    JudgedEpoch,
    Point,
    Stopping,
    StopRule,
    judged_epochs,
    layers_of,
    rank_among,
    ranking,
)

rate = st.integers(0, 12).map(lambda twelfths: twelfths / 12)  # coarse, so that points coincide and share a rate
points = st.lists(st.tuples(rate, rate), max_size=14)


def dominates(one: Point, other: Point) -> bool:
    return one[0] <= other[0] and one[1] >= other[1] and one != other


def layers_by_definition(found: list[Point]) -> list[int]:
    layers: dict[int, int] = {}
    while len(layers) < len(found):
        left = [at for at in range(len(found)) if at not in layers]
        best = [at for at in left if not any(dominates(found[by], found[at]) for by in left)]
        layers |= dict.fromkeys(best, max(layers.values(), default=-1) + 1)
    return [layers[at] for at in range(len(found))]


def epochs(*rates: tuple[float, float]) -> list[JudgedEpoch]:
    return [JudgedEpoch(at, (asr, ca), ca, ca + 0.03) for at, (asr, ca) in enumerate(rates, 1)]


def rule(peers: dict[int, tuple[Point, ...]] | None = None, **settings: float | str | None) -> StopRule:
    return StopRule(settings=Stopping.model_validate(settings), stage="unlearn", peers=peers or {})


@given(points)
def test_layers_are_what_is_left_without_those_before(found: list[Point]) -> None:
    assert layers_of(found) == layers_by_definition(found)


@given(points)
def test_a_ranking_has_every_point_once_and_no_layer_before_a_better_one(found: list[Point]) -> None:
    order, layers = ranking(found), layers_of(found)
    assert sorted(order) == list(range(len(found)))
    assert [layers[at] for at in order] == sorted(layers)


@given(st.tuples(rate, rate), points)
def test_a_rank_lies_between_those_that_dominate_it_and_those_that_it_dominates(
    point: Point, peers: list[Point]
) -> None:
    better, worse = sum(dominates(one, point) for one in peers), sum(dominates(point, one) for one in peers)
    assert better <= rank_among(point, peers) <= len(peers) - worse


@given(st.tuples(rate, rate), points, st.randoms())
def test_a_rank_does_not_depend_on_the_order_of_the_others(point: Point, peers: list[Point], random) -> None:
    shuffled = random.sample(peers, len(peers))
    assert rank_among(point, peers) == rank_among(point, shuffled)


def test_of_a_layer_the_ends_come_first_then_what_is_least_crowded_and_a_point_met_before_last() -> None:
    layer = [(0.0, 0.2), (0.1, 0.3), (0.2, 0.4), (0.7, 0.8), (1.0, 1.0), (0.7, 0.8)]
    assert ranking(layer) == [0, 4, 3, 2, 1, 5]


@given(st.integers(1, 6), st.floats(1, 5), st.integers(1, 60))
def test_rungs_rise_from_the_grace_and_end_before_the_last_epoch(grace: int, spacing: float, last: int) -> None:
    found = list(Stopping(grace_epochs=grace, rung_spacing=spacing).rungs(last))
    assert found == sorted(set(found))
    assert found[:1] == ([grace] if grace < last else [])
    assert all(rung < last for rung in found)
    assert list(Stopping(grace_epochs=grace, rung_spacing=1).rungs(last)) == list(range(grace, last))


@given(points, st.floats(0.05, 0.95), st.sampled_from(["go_on", "crowding"]))
def test_what_beats_all_others_goes_on_and_what_all_others_beat_ends(
    peers: list[Point], keep: float, equals: str
) -> None:
    inner = tuple((asr * 0.5 + 0.25, ca * 0.5 + 0.25) for asr, ca in peers)
    stops = rule({2: inner}, keep=keep, equals=equals, ca_floor=None)
    assert stops.first_stop(epochs((0.0, 1.0), (0.0, 1.0)), 4, None) is None
    ends = stops.first_stop(epochs((1.0, 0.0), (1.0, 0.0)), 4, None) is not None
    assert ends == (len(inner) >= stops.go_on(len(inner)))


@given(st.tuples(rate, rate), points, st.floats(0.05, 0.95))
def test_what_none_beats_goes_on_and_crowding_ends_no_fewer(point: Point, peers: list[Point], keep: float) -> None:
    found = [
        rule({2: tuple(peers)}, keep=keep, equals=equals, ca_floor=None).first_stop(epochs(point, point), 4, None)
        for equals in ("go_on", "crowding")
    ]
    assert found[0] is None or any(dominates(one, point) for one in peers)
    assert found[0] is None or found[1] is not None


@given(st.lists(st.tuples(rate, rate), min_size=1, max_size=8), points, st.integers(1, 8))
def test_epochs_that_come_one_by_one_or_all_at_once_end_a_trial_at_the_same_one(
    own: list[Point], peers: list[Point], last: int
) -> None:
    stops = rule({1: tuple(peers), 2: tuple(peers), 4: tuple(peers)}, ca_floor=0.1, grace_epochs=1, rung_spacing=2)
    at_once = stops.first_stop(epochs(*own), last, 0.8)
    one_by_one = (stops.first_stop(epochs(*own[:many]), last, 0.8) for many in range(1, len(own) + 1))
    first = next((found for found in one_by_one if found), None)
    assert at_once == first
    assert first is None or first.epoch < last


def test_a_trial_that_too_many_were_better_than_ends_with_the_reason() -> None:
    stops = rule({1: (), 2: ((0.1, 0.9), (0.2, 0.8), (0.3, 0.7))}, ca_floor=None)
    judged = epochs((0.9, 0.6), (0.9, 0.6), (0.0, 1.0))
    found = stops.first_stop(judged, 4, 0.9)
    assert found is not None
    assert (found.epoch, found.by, found.rank, found.peers) == (2, "rank", 3, 3)
    assert stops.reason(found, judged, 0.9) == (
        "after epoch 2 of `unlearn` 3 of the 3 trials that it was compared with came before it by ASR and CA; the best"
        " 2 of 4 go on (search.stopping)"
    )
    assert stops.first_stop(epochs((0.0, 1.0), (0.0, 1.0)), 4, 0.9) is None


def test_without_others_to_compare_with_a_trial_goes_on() -> None:
    assert rule({2: ()}).first_stop(epochs((1.0, 0.0), (1.0, 0.0)), 4, None) is None
    assert rule({2: ((0.0, 1.0),)}).first_stop(epochs((1.0, 0.0), (1.0, 0.0)), 4, None) is not None


def test_accuracy_ends_a_trial_only_where_its_whole_interval_lies_below_the_floor() -> None:
    stops = rule(ca_floor=0.1, grace_epochs=2)
    judged = epochs((0.5, 0.1), (0.5, 0.68), (0.5, 0.66), (0.5, 0.1))  # intervals reach 0.03 higher
    found = stops.first_stop(judged, 8, 0.8)
    assert found is not None
    assert (found.epoch, found.by) == (3, "ca_floor")
    assert stops.reason(found, judged, 0.8) == (
        "after epoch 3 of `unlearn` CA was 66.0 %, by its 95 % interval more than 10 points below the 80.0 % of the"
        " poisoned model (search.stopping.ca_floor)"
    )
    assert stops.first_stop(judged, 8, None) is None
    assert rule(ca_floor=None).first_stop(judged, 8, 0.8) is None


def test_without_the_trigger_models_are_ranked_by_what_a_defender_sees() -> None:
    interval = {"ca_low": 0.7, "ca_high": 0.9, "asr_low": 0.0, "asr_high": 1.0}
    val = Rates(ca=0.8, asr=0.9, ca_images=100, asr_images=90, triggered_accuracy=0.1, **interval)
    seen = {"alike": 0.25, "held_similarity": 0.5, "held_similarity_before": 0.75}
    found = [
        EpochRecord(epoch=1, seconds=1, val=val, observed=seen),
        EpochRecord(epoch=2, seconds=1, val=val),
        EpochRecord(epoch=3, seconds=1),
    ]
    assert [one.point for one in judged_epochs(found, "lowest_asr")] == [(0.9, 0.8), (0.9, 0.8)]
    assert [one.point for one in judged_epochs(found, "trigger_free")] == [(0.25, 0.8), None]


@pytest.mark.parametrize(("given_lag", "lag"), [(None, 7), (3, 3)])
def test_a_lag_that_is_given_stays(given_lag: int | None, lag: int) -> None:
    assert Stopping(lag=given_lag).with_lag(7).lag == lag
