"""Which settings go into the table, on outcomes made up for it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps.search.comparison_proposer import choose
from sweeps.search.proposals import Outcome

FAILED = Outcome(None)
RATES = st.floats(0, 1).map(lambda rate: round(rate, 2))
OUTCOMES = st.one_of(st.just(FAILED), st.builds(lambda asr, lost: Outcome((asr, 0.8), lost), RATES, RATES))


def of(asr: float, lost: float = 0.0) -> Outcome:
    return Outcome((asr, 0.8 - lost), lost)


def test_the_lowest_mean_asr_is_chosen() -> None:
    assert choose([[of(0.2), of(0.2)], [of(0.0), of(0.3)], [of(0.5), of(0.0)]], "mean", 0.02) == 1


def test_the_lowest_worst_asr_is_chosen_where_that_is_asked_for() -> None:
    assert choose([[of(0.2), of(0.2)], [of(0.0), of(0.3)], [of(0.5), of(0.0)]], "worst", 0.02) == 0


def test_settings_that_lose_more_accuracy_than_the_floor_on_average_are_passed_over() -> None:
    assert choose([[of(0.0, 0.05), of(0.0, 0.0)], [of(0.4, 0.04), of(0.4, 0.0)]], "mean", 0.02) == 1


def test_settings_exactly_on_the_floor_qualify() -> None:
    assert choose([[of(0.5)], [Outcome((0.0, 0.8), 0.82 - 0.8)]], "mean", 0.02) == 1


def test_if_all_lose_more_the_one_that_loses_least_is_chosen() -> None:
    assert choose([[of(0.0, 0.5)], [of(0.9, 0.1)], [of(0.1, 0.2)]], "mean", 0.02) == 1


def test_a_gain_of_accuracy_is_no_loss() -> None:
    assert choose([[of(0.2)], [of(0.1, -0.05)]], "mean", 0.0) == 1


def test_ties_go_to_the_smaller_loss_and_then_to_the_earlier() -> None:
    assert choose([[of(0.1, 0.02)], [of(0.1, 0.01)], [of(0.1, 0.01)]], "mean", 0.02) == 1
    assert choose([[of(0.1)], [of(0.1)]], "mean", 0.02) == 0


def test_what_failed_on_one_attack_is_not_chosen() -> None:
    assert choose([[of(0.0), FAILED], [of(0.5), of(0.5)]], "mean", 0.02) == 1


def test_an_attack_on_which_all_failed_says_nothing_of_the_settings() -> None:
    assert choose([[of(0.3), FAILED], [of(0.1), FAILED]], "mean", 0.02) == 1


def test_nothing_is_chosen_where_nothing_was_measured() -> None:
    assert choose([[FAILED, FAILED], [FAILED, FAILED]], "mean", 0.02) is None
    assert choose([[of(0.1), FAILED], [FAILED, of(0.1)]], "mean", 0.02) is None


def test_settings_whose_loss_is_not_known_are_not_chosen() -> None:
    assert choose([[Outcome((0.0, 0.9))], [of(0.5)]], "mean", 0.02) == 1


@pytest.mark.parametrize("by", ["mean", "worst"])
@given(rows=st.lists(st.lists(OUTCOMES, min_size=3, max_size=3), min_size=1, max_size=6), floor=RATES)
def test_no_other_setting_that_qualifies_is_better(by: str, rows: list[list[Outcome]], floor: float) -> None:
    """Compared with a plain reading of the rule, by exhaustion."""
    alive = [a for a in range(3) if any(row[a].values for row in rows)]
    scores = {}
    for at, row in enumerate(rows):
        if alive and all(row[a].values for a in alive):
            asr = [row[a].values[0] for a in alive]
            lost = sum(row[a].ca_lost for a in alive) / len(alive)
            scores[at] = (max(asr) if by == "worst" else sum(asr) / len(asr), lost)
    chosen = choose(rows, by, floor)
    if not scores:
        assert chosen is None
        return
    assert chosen in scores
    kept = [score for score in scores.values() if score[1] <= floor + 1e-9]
    if kept:
        assert scores[chosen][1] <= floor + 1e-9
        assert scores[chosen][0] == pytest.approx(min(asr for asr, _ in kept))
    else:
        assert scores[chosen][1] == pytest.approx(min(lost for _, lost in scores.values()))


def seen(alike: float, lost: float = 0.0, held_lost: float = 0.0) -> Outcome:
    return Outcome((alike, 0.8 - lost), lost, held_lost)


def test_without_the_trigger_means_of_what_is_seen_decide() -> None:
    alike, weak, strong = seen(0.9), seen(0.08, 0.0, 0.02), seen(0.0, 0.01, 0.1)
    assert choose([[alike, alike], [strong, strong], [weak, weak], [weak, alike]], "mean", 0.02, "trigger_free") == 2
    assert choose([[weak, weak], [seen(0.0, 0.0, 0.01), seen(0.15)]], "mean", 0.02, "trigger_free") == 1
    assert choose([[weak, weak], [seen(0.0, 0.0, 0.01), seen(0.15)]], "worst", 0.02, "trigger_free") == 0
