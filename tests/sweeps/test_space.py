import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from sweeps.search.space import Dimension, Range, contains, samples_of, space_size, tidy, values_of

DIMENSION = TypeAdapter(Dimension)


@pytest.mark.parametrize(
    ("given_range", "message"),
    [
        ({"low": 2, "high": 1}, "less than"),
        ({"low": 1, "high": 1}, "less than"),
        ({"low": 0, "high": 1, "log": True}, "above 0"),
        ({"low": 1, "high": 9, "log": True, "step": 2}, "exclude"),
        ({"low": 1, "high": 9, "step": 0}, "greater than 0"),
        ({"low": 1, "high": float("inf")}, "finite"),
        ({"low": 1, "high": 2, "hgih": 3}, "Extra inputs"),
    ],
)
def test_a_range_that_makes_no_sense_is_refused(given_range: dict[str, float], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DIMENSION.validate_python(given_range)


def test_an_empty_list_is_no_dimension() -> None:
    with pytest.raises(ValidationError):
        DIMENSION.validate_python([])


@pytest.mark.parametrize("values", [[1, 2, 1], ["a", "a"], [{"kind": "sig"}, {"kind": "sig"}]])
def test_a_value_that_is_listed_twice_is_a_mistake(values: list[object]) -> None:
    with pytest.raises(ValidationError, match="more than once"):
        DIMENSION.validate_python(values)


def test_true_and_one_are_two_values() -> None:
    assert DIMENSION.validate_python([1, True, "1"]) == [1, True, "1"]


@pytest.mark.parametrize(
    ("dimension", "whole", "size"),
    [
        (Range(low=1, high=5), True, 5),
        (Range(low=1, high=6, step=2), True, 3),
        (Range(low=1, high=5, step=0.5), False, 9),
        (Range(low=0.1, high=0.3, step=0.1), False, 3),
        (Range(low=1.0, high=5), False, math.inf),
        (Range(low=1, high=8, log=True), True, 8),
    ],
)
def test_the_size_of_a_range_is_the_number_of_its_values(dimension: Range, whole: bool, size: float) -> None:
    assert (dimension.whole, dimension.size) == (whole, size)
    if math.isfinite(size):
        assert len(values_of("x", dimension)) == size


def test_values_run_from_low_to_high_in_steps() -> None:
    assert values_of("x", Range(low=1, high=6, step=2)) == [1, 3, 5]
    assert values_of("x", Range(low=2, high=4)) == [2, 3, 4]
    assert values_of("x", ["b", "a"]) == ["b", "a"]


def test_values_are_as_one_writes_them() -> None:
    """0.1 + 2 · 0.1 is 0.30000000000000004: another key than 0.3, and an ugly label."""
    assert values_of("x", Range(low=0.1, high=0.7, step=0.1)) == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]


@given(st.floats(min_value=-1e6, max_value=1e6))
def test_tidying_changes_nothing_that_matters(value: float) -> None:
    assert math.isclose(tidy(value), value, rel_tol=1e-11, abs_tol=0)
    assert tidy(tidy(value)) == tidy(value)


@pytest.mark.parametrize(
    "dimension", [Range(low=0, high=10**12), Range(low=0, high=1, step=1e-12), Range(low=1, high=2**62, log=True)]
)
def test_more_values_than_a_study_may_have_are_counted_not_laid_out(dimension: Range) -> None:
    with pytest.raises(ValueError, match=r"^space: [\d,.e+]+ values of x are more than the 100,000"):
        values_of("x", dimension)


def test_a_grid_needs_a_finite_range() -> None:
    with pytest.raises(ValueError, match=r"defense\.x: a grid needs `step`"):
        values_of("defense.x", Range(low=0.1, high=0.5))


@given(st.integers(-20, 20), st.integers(1, 20), st.none() | st.integers(1, 5))
def test_a_whole_range_contains_its_values_and_nothing_between_them(low: int, width: int, step: int | None) -> None:
    dimension = Range(low=low, high=low + width, step=step)
    values = values_of("x", dimension)
    assert [value for value in range(low - 3, low + width + 4) if contains(dimension, value)] == values
    assert not any(contains(dimension, value + 0.5) for value in values)


@given(st.integers(0, 50))
def test_a_range_of_tenths_contains_its_values_however_they_were_computed(index: int) -> None:
    dimension = Range(low=0.1, high=5.1, step=0.1)
    assert contains(dimension, 0.1 + index * 0.1)
    assert contains(dimension, (index + 1) / 10)
    assert not contains(dimension, (index + 1) / 10 + 0.03)


def test_a_range_without_steps_contains_what_lies_between_its_ends() -> None:
    dimension = Range(low=1e-6, high=1e-3, log=True)
    assert [contains(dimension, value) for value in (1e-7, 1e-6, 3.3e-5, 1e-3, 1.1e-3)] == [
        False,
        True,
        True,
        True,
        False,
    ]
    assert not contains(dimension, "1e-5")
    assert not contains(dimension, None)


def test_a_list_contains_its_values() -> None:
    assert contains([1, "a", {"kind": "sig"}], {"kind": "sig"})
    assert not contains([1, "a"], 2)


def test_a_space_has_the_product_of_its_dimensions() -> None:
    assert space_size({"a": [1, 2, 3], "b": Range(low=1, high=4)}) == 12
    assert space_size({"a": [1, 2, 3], "b": Range(low=0.0, high=1)}) == math.inf
    assert space_size({}) == 1


@pytest.mark.parametrize(
    "dimension",
    [Range(low=2, high=9), Range(low=2, high=9, step=3), Range(low=0.5, high=1.5), Range(low=1.0, high=64.0)],
)
def test_samples_show_both_ends_and_something_between(dimension: Range) -> None:
    ends, (between,) = samples_of(dimension)
    assert ends == [dimension.low, dimension.high]
    assert dimension.low < between < dimension.high
    assert contains(dimension, between)
    assert float(between).is_integer() == dimension.whole


def test_every_value_of_a_list_is_a_sample() -> None:
    assert samples_of([3, "x"]) == ([3, "x"], [])
