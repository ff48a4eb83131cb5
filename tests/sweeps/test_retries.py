from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps.scheduling.retries import NODE_DIED, RULES, WORKER_DIED, Retries, Rule

FAULTS = st.sampled_from([*RULES, "PermissionError", "StageFault"])


@given(st.lists(st.tuples(st.sampled_from("ab"), FAULTS)), st.integers(0, 3))
def test_what_counts_is_run_again_at_most_as_often_as_wanted_for_each_rule(
    ends: list[tuple[str, str]], wanted: int
) -> None:
    retries = Retries(wanted)
    again = [(trial, fault) for trial, fault in ends if retries.after(trial, fault)]
    for trial in "ab":
        for rule in {rule for rule in RULES.values() if rule.counts}:
            assert sum(one == trial and RULES[fault] == rule for one, fault in again) <= wanted
    unlimited = {fault for fault, rule in RULES.items() if not rule.counts}
    assert [end for end in again if end[1] in unlimited] == [end for end in ends if end[1] in unlimited]
    assert all(fault in RULES for _, fault in again)


@pytest.mark.parametrize(("times", "runs"), [(None, 4), (1, 2), (9, 4)])
def test_a_rule_may_allow_fewer_times_but_not_more(times: int | None, runs: int) -> None:
    retries = Retries(3, {"Stalled": Rule(times=times)})
    assert [bool(retries.after("t", "Stalled")) for _ in range(5)] == [True] * (runs - 1) + [False] * (6 - runs)


def test_a_death_of_the_worker_and_one_of_its_node_count_together() -> None:
    retries = Retries(1)
    assert retries.after("t", WORKER_DIED)
    assert not retries.after("t", NODE_DIED)
    assert retries.after("another", NODE_DIED)
