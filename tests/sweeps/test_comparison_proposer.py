"""The trials of a comparison: their numbers and labels, and that they do not depend on the order of outcomes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps.search.comparison import ComparedDefense, Comparison
from sweeps.search.comparison_proposer import ComparisonProposer, settings_of
from sweeps.search.proposals import Outcome, Proposal

RATIO, RATE = "defense.suspicious_ratio", "defense.finetune_learning_rate"
FIELDS: dict[str, Any] = {
    "attacks": {
        "badnets": {"kind": "badnets", "poison_rate": 0.03},
        "sig": {"kind": "sig"},
        "strong": {"kind": "sig", "poison_rate": 0.5},
    },
    "search_on": ["badnets", "sig"],
    "defenses": {
        "none": {"defense": {"kind": "none"}},
        "finetune": {
            "defense": {"kind": "finetune", "finetune_epochs": 3},
            "search": {"design": "grid", "space": {RATE: [1e-4, 1e-3]}},
        },
        "ubt": {"defense": {"kind": "ubt"}, "search": {"design": "grid", "space": {RATIO: [0.02, 0.03, 0.04]}}},
    },
}
SEARCHED = 2 * 2 + 3 * 2
LABELS = ["table:none", "table:finetune", "table:ubt"]


def comparison(**fields: Any) -> Comparison:
    return Comparison.model_validate({**FIELDS, **fields})


def everything_open(proposer: ComparisonProposer) -> list[Proposal]:
    return list(iter(proposer.propose, None))


def result(proposal: Proposal) -> Outcome:
    """Return a made-up outcome that prefers 0.03 and 1e-4: further off is worse."""
    defense = proposal.changes["defense"]
    off = abs(defense.get("suspicious_ratio", 0.03) - 0.03) + abs(defense.get("finetune_learning_rate", 1e-4) - 1e-4)
    return Outcome((off, 0.8), 0.0)


def run(proposer: ComparisonProposer, order: Sequence[int] = (), outcome: Any = result) -> dict[int, Proposal]:
    """Run all proposals; `order` says which of the open ones ends next. Return them by number."""
    found: dict[int, Proposal] = {}
    steps, waiting = iter(order), everything_open(proposer)
    while waiting:
        ended = waiting.pop(next(steps, 0) % len(waiting))
        assert ended.number not in found
        found[ended.number] = ended
        proposer.tell(ended, outcome(ended))
        waiting += everything_open(proposer)
    assert proposer.exhausted
    return found


def test_the_searches_come_first_and_run_with_one_seed() -> None:
    trials = comparison().expand({})
    assert [trial.number for trial in trials] == list(range(SEARCHED + 9))
    assert [str(trial.label) for trial in trials[:SEARCHED]] == [
        *["search:finetune/badnets", "search:finetune/sig"] * 2,
        *["search:ubt/badnets", "search:ubt/sig"] * 3,
    ]
    assert {trial.replicates for trial in trials[:SEARCHED]} == {1}


def test_the_table_goes_attack_by_attack_with_every_seed() -> None:
    table = comparison().expand({})[SEARCHED:]
    assert [str(trial.label) for trial in table] == [
        f"{row}/{attack}" for attack in ("badnets", "sig", "strong") for row in LABELS
    ]
    assert {trial.replicates for trial in table} == {None}


def test_a_trial_says_its_attack_and_its_defense_as_one_would_write_them() -> None:
    first, *_ = comparison().expand({})
    assert first.changes == {
        "victim.attack": {"kind": "badnets", "poison_rate": 0.03},
        "defense": {"kind": "finetune", "finetune_epochs": 3, "finetune_learning_rate": 1e-4},
    }


def test_every_attack_is_searched_on_where_none_is_named() -> None:
    assert len(comparison(search_on=[]).expand({})) == (2 + 3) * 3 + 9


def test_a_setting_that_the_defense_has_anyway_is_tried_once() -> None:
    own = {"kind": "ubt", "suspicious_ratio": 0.2}
    search = {"design": "ofat", "space": {RATIO: [0.2, 0.3]}}
    compared = ComparedDefense.model_validate({"defense": own, "search": search})
    assert settings_of(compared) == [own, {"kind": "ubt", "suspicious_ratio": 0.3}]


def test_what_needs_no_search_is_proposed_at_once_and_the_rest_waits() -> None:
    proposer = ComparisonProposer(comparison(), 0.02)
    proposed = everything_open(proposer)
    assert [trial.number for trial in proposed] == [*range(SEARCHED), *(SEARCHED + 3 * attack for attack in range(3))]
    assert not proposer.exhausted
    assert proposer.propose() is None


def test_a_row_is_proposed_when_the_last_trial_of_its_own_search_has_ended() -> None:
    proposer = ComparisonProposer(comparison(), 0.02)
    *most, last = [trial for trial in everything_open(proposer) if str(trial.label).startswith("search:finetune")]
    for trial in most:
        proposer.tell(trial, result(trial))
    assert proposer.propose() is None
    proposer.tell(last, result(last))
    assert [trial.label.cell.defense for trial in everything_open(proposer)] == ["finetune"] * 3


def test_the_chosen_settings_meet_every_attack() -> None:
    found = run(ComparisonProposer(comparison(), 0.02))
    table = {
        str(trial.label): trial.changes["defense"] for trial in found.values() if str(trial.label).startswith("table")
    }
    for attack in FIELDS["attacks"]:
        assert table[f"table:ubt/{attack}"] == {"kind": "ubt", "suspicious_ratio": 0.03}
        assert table[f"table:finetune/{attack}"]["finetune_learning_rate"] == 1e-4
        assert table[f"table:none/{attack}"] == {"kind": "none"}


@given(st.lists(st.integers(0, 50), max_size=SEARCHED + 9))
def test_any_order_of_outcomes_gives_the_same_trials(order: list[int]) -> None:
    assert run(ComparisonProposer(comparison(), 0.02), order) == run(ComparisonProposer(comparison(), 0.02))


def test_the_table_has_the_places_that_were_planned_for_it() -> None:
    found = run(ComparisonProposer(comparison(), 0.02))
    assert [str(found[number].label) for number in sorted(found)] == [
        str(trial.label) for trial in comparison().expand({})
    ]


def test_settings_that_lose_too_much_are_passed_over() -> None:
    def outcome(trial: Proposal) -> Outcome:
        ratio = trial.changes["defense"].get("suspicious_ratio", 0.0)
        return Outcome((1 - ratio, 0.8), 0.1 if ratio == 0.04 else 0.0)

    for floor, ratio in ((0.02, 0.03), (0.1, 0.04)):
        found = run(ComparisonProposer(comparison(), floor), outcome=outcome)
        assert found[SEARCHED + 2].changes["defense"]["suspicious_ratio"] == ratio


def test_what_is_chosen_by_the_worst_case_may_differ() -> None:
    def outcome(trial: Proposal) -> Outcome:
        rates = {0.02: (0.0, 0.3), 0.03: (0.2, 0.2), 0.04: (0.5, 0.5)}.get(
            trial.changes["defense"].get("suspicious_ratio"), (0.5, 0.5)
        )
        return Outcome((rates[trial.label.cell.attack == "sig"], 0.8), 0.0)

    for by, ratio in (("mean", 0.02), ("worst", 0.03)):
        found = run(ComparisonProposer(comparison(choose_by=by), 0.02), outcome=outcome)
        assert found[SEARCHED + 2].changes["defense"]["suspicious_ratio"] == ratio


def test_a_defense_whose_search_failed_keeps_its_own_settings_and_its_row_says_so(caplog: Any) -> None:
    def outcome(trial: Proposal) -> Outcome:
        return Outcome(None) if "ubt" in str(trial.label) else result(trial)

    with caplog.at_level(logging.WARNING):
        found = run(ComparisonProposer(comparison(), 0.02), outcome=outcome)
    assert found[SEARCHED + 2].changes["defense"] == {"kind": "ubt"}
    assert str(found[SEARCHED + 2].label) == "table:ubt/badnets (search failed)"
    assert str(found[SEARCHED + 1].label) == "table:finetune/badnets"
    assert "no setting of `ubt`" in caplog.text


def test_a_comparison_without_searches_is_its_table() -> None:
    defenses = {"none": {"defense": {"kind": "none"}}, "ubt": {"defense": {"kind": "ubt"}}}
    found = run(ComparisonProposer(comparison(defenses=defenses), 0.02))
    assert list(found.values()) == comparison(defenses=defenses).expand({})
    assert len(found) == 6


def test_a_search_that_lays_nothing_out_is_none() -> None:
    empty = {"defense": {"kind": "ubt"}, "search": {"design": "zip"}}
    found = run(ComparisonProposer(comparison(defenses={"ubt": empty}), 0.02))
    assert [str(trial.label) for trial in found.values()] == [f"table:ubt/{name}" for name in FIELDS["attacks"]]


@pytest.mark.parametrize("path", ["victim.attack.poison_rate", "defense"])
def test_the_search_of_a_defense_may_change_nothing_else(path: str) -> None:
    search = {"design": "list", "trials": [{path: 1}]}
    with pytest.raises(ValueError, match=path):
        ComparedDefense.model_validate({"defense": {"kind": "ubt"}, "search": search})


def test_a_defense_that_holds_another_configuration_is_written_with_that_one_s_kind() -> None:
    defense = {"kind": "ubt", "detector": {"kind": "knn"}}
    trials = comparison(defenses={"ubt": {"defense": defense}}).expand({})
    assert trials[0].changes["defense"] == defense
