"""What a store gives up for its budget: never what is needed, first what was used longest ago."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ubt.artifacts.manifest import ArtifactManifest, Payload
from ubt.artifacts.upkeep.budget import Needs, excess, parse_size
from ubt.common.errors import UserError

NOW = datetime(2026, 1, 31, tzinfo=UTC)


def meta(key: str, size: int = 10, base: str | None = None) -> ArtifactManifest:
    payloads = {"model": Payload(file=f"{key}.bin", xxh3="0", size_bytes=size)}
    return ArtifactManifest(
        stage="s", key=key, version=1, seed=0, settings={}, inputs={}, base=base and f"s/{base}", payloads=payloads
    )


def used(**days_ago: int):
    return lambda manifest: NOW - timedelta(days=days_ago.get(manifest.key, 0))


def leaving(*metas: ArtifactManifest, budget: int, needs: Needs | None = None, **days_ago: int) -> list[str]:
    return [one.key for one in excess(metas, budget, needs or Needs(), used(**days_ago)).leaving]


def test_within_the_budget_nothing_goes() -> None:
    assert leaving(meta("a"), meta("b"), budget=20) == []


def test_what_was_used_longest_ago_goes_first_and_no_more_than_must() -> None:
    assert leaving(meta("a"), meta("b"), meta("c"), budget=15, a=1, b=3, c=2) == ["b", "c"]


def test_the_front_goes_last_and_what_the_plan_or_a_trial_that_computes_needs_stays() -> None:
    metas = [meta(key) for key in "abcd"]
    needs = Needs(computed=frozenset("a"), plan=frozenset("b"), front=frozenset("c"))
    assert leaving(*metas, budget=30, needs=needs, a=9, b=8, c=7, d=1) == ["d"]
    assert leaving(*metas, budget=20, needs=needs, a=9, b=8, c=7, d=1) == ["d", "c"]
    found = excess(metas, 5, needs, used())
    assert ([one.key for one in found.leaving], found.size_bytes, found.over_bytes) == (["d", "c"], 20, 15)


def test_a_model_is_needed_as_much_as_what_is_a_difference_from_it_and_goes_after_it() -> None:
    metas = [meta("victim"), meta("middle", base="victim"), meta("end", base="middle"), meta("other")]
    needs = Needs(plan=frozenset({"end"}))
    assert leaving(*metas, budget=0, needs=needs, victim=9, middle=8, other=1) == ["other"]
    assert leaving(*metas, budget=0, victim=9, middle=8, end=7, other=1) == ["end", "middle", "victim", "other"]


def test_what_lies_beside_the_artifacts_counts() -> None:
    found = excess([meta("a"), meta("b")], 25, Needs(), used(a=1), other_bytes=10)
    assert [one.key for one in found.leaving] == ["a"]


@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(0, 3), st.integers(0, 9), st.integers(0, 7)), max_size=8),
    st.integers(0, 100),
)
def test_nothing_is_left_without_what_it_is_a_difference_from(rows, budget) -> None:
    metas = [meta(str(at), size, str(base) if base < at else None) for at, (size, _, _, base) in enumerate(rows)]
    marks = {str(at): need for at, (_, need, _, _) in enumerate(rows)}
    of = {level: frozenset(key for key, need in marks.items() if need == level) for level in range(4)}
    ago = {str(at): days for at, (_, _, days, _) in enumerate(rows)}
    found = excess(metas, budget, Needs(of[3], of[2], of[1]), lambda one: NOW - timedelta(days=ago[one.key]))
    gone = {one.key for one in found.leaving}
    staying = [one for one in metas if one.key not in gone]
    assert not {(one.base or "").partition("/")[2] for one in staying} & gone
    assert not {key for key in gone if marks[key] > 1}
    assert found.size_bytes == sum(one.size_bytes for one in staying)
    assert found.over_bytes == max(0, found.size_bytes - budget)
    if found.leaving:  # the last one had to go, too
        assert found.size_bytes + found.leaving[-1].size_bytes > budget


@pytest.mark.parametrize(("text", "size"), [("200GB", 200 * 10**9), ("64 GiB", 64 << 30), ("1.5TB", 1_500 * 10**9)])
def test_a_budget_is_written_with_its_unit(text: str, size: int) -> None:
    assert parse_size(text) == size


def test_another_budget_is_refused() -> None:
    with pytest.raises(UserError, match=r"--budget: is a number of bytes with its unit .given: 'much'"):
        parse_size("much")
