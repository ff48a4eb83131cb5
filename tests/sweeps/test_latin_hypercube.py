"""A Latin hypercube over lists, ranges, steps and logarithms."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from sweeps.search.latin_hypercube import LatinHypercube
from sweeps.search.space import Range, contains

ENDS = st.tuples(st.floats(1e-6, 1e3), st.floats(1.5, 1e4)).map(lambda given: (given[0], given[0] * given[1]))
WHOLE = st.tuples(st.integers(1, 50), st.integers(60, 5000))
SPACES = st.builds(
    lambda ends, log, whole, whole_log, step, steps, values: {
        "defense.a": {"low": ends[0], "high": ends[1], "log": log},
        "defense.b": {"low": whole[0], "high": whole[1], "log": whole_log},
        "defense.c": {"low": 0, "high": step * steps, "step": step},
        "defense.d": list(range(values)),
    },
    ENDS,
    st.booleans(),
    WHOLE,
    st.booleans(),
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(1, 6),
)


def design(space: dict[str, Any], **fields: Any) -> LatinHypercube:
    return LatinHypercube.model_validate({"space": space, **fields})


@settings(max_examples=40)
@given(space=SPACES, n_trials=st.integers(1, 40), seed=st.integers(0, 5))
def test_every_configuration_lies_in_the_space_and_each_is_there_once(
    space: dict[str, Any], n_trials: int, seed: int
) -> None:
    search = design(space, n_trials=n_trials, sampler_seed=seed)
    layout = search.layout()
    assert len({json.dumps(changes) for changes in layout}) == len(layout) == n_trials
    assert all(contains(search.space[path], value) for changes in layout for path, value in changes.items())
    assert layout == design(space, n_trials=n_trials, sampler_seed=seed).layout()


@settings(max_examples=40)
@given(ends=ENDS, log=st.booleans(), n_trials=st.integers(2, 60), seed=st.integers(0, 5))
def test_a_range_has_one_in_each_of_its_equal_parts(
    ends: tuple[float, float], log: bool, n_trials: int, seed: int
) -> None:
    search = design({"defense.a": {"low": ends[0], "high": ends[1], "log": log}}, n_trials=n_trials, sampler_seed=seed)
    dimension = search.space["defense.a"]
    assert isinstance(dimension, Range)
    scale = math.log if log else float
    low, high = scale(dimension.low), scale(dimension.high)
    shares = sorted((scale(changes["defense.a"]) - low) / (high - low) for changes in search.layout())  # type: ignore[arg-type]
    for part, share in enumerate(shares):
        assert part / n_trials - 1e-6 <= share <= (part + 1) / n_trials + 1e-6


@settings(max_examples=40)
@given(values=st.integers(1, 7), times=st.integers(1, 9), seed=st.integers(0, 5))
def test_values_of_a_list_come_up_equally_often_where_that_can_be(values: int, times: int, seed: int) -> None:
    space = {"defense.d": list(range(values)), "defense.a": {"low": 0.5, "high": 2.5}}
    layout = design(space, n_trials=values * times, sampler_seed=seed).layout()
    assert set(Counter(str(changes["defense.d"]) for changes in layout).values()) == {times}


@settings(max_examples=40)
@given(values=st.integers(2, 9), n_trials=st.integers(1, 60))
def test_and_about_equally_often_elsewhere(values: int, n_trials: int) -> None:
    space = {"defense.d": {"low": 0, "high": values - 1}, "defense.a": {"low": 0.5, "high": 2.5}}
    counts = Counter(str(changes["defense.d"]) for changes in design(space, n_trials=n_trials).layout())
    assert all(abs(counts[str(value)] - n_trials / values) < 2 for value in range(values))


def test_another_seed_is_another_design() -> None:
    space = {"defense.a": {"low": 0.5, "high": 2.5}}
    assert design(space).layout() != design(space, sampler_seed=1).layout()


def test_a_hypercube_without_repeats_is_looked_for() -> None:
    """On 3 × 3 values with 6 configurations most hypercubes repeat one."""
    space = {"defense.a": [1, 2, 3], "defense.b": [1, 2, 3]}
    assert [len(design(space, n_trials=6, sampler_seed=seed).layout()) for seed in range(5)] == [6] * 5


def test_a_space_that_has_no_more_is_run_whole() -> None:
    layout = design({"defense.a": [1, 2], "defense.b": {"low": 1, "high": 3}}, n_trials=24).layout()
    assert sorted(tuple(changes.values()) for changes in layout) == [(a, b) for a in (1, 2) for b in (1, 2, 3)]


def test_one_without_a_space_is_a_mistake() -> None:
    with pytest.raises(ValidationError, match="needs a space"):
        design({})
