"""The ablations of `leave_one_out`: every choice that UBT's settings offer is one of them."""

from __future__ import annotations

from typing import Literal, get_args, get_origin

import pytest

from sweeps.search.designs import COMPONENTS, LeaveOneOut
from ubt.config import set_path
from ubt.defenses.ubt import Ubt
from ubt.trials.config import TrialConfig

OTHER_CHOICES = [
    (name, choice)
    for name, field in Ubt.model_fields.items()
    if get_origin(field.annotation) is Literal
    for choice in get_args(field.annotation)
    if choice != field.default
]


@pytest.mark.parametrize(("name", "choice"), OTHER_CHOICES)
def test_every_choice_other_than_the_default_is_an_ablation(name: str, choice: str) -> None:
    assert [one for one in COMPONENTS.values() if one.changes == {f"defense.{name}": choice}]


def test_what_can_be_left_out_altogether_is() -> None:
    assert COMPONENTS["no-overfit"].changes == {"defense.overfit_epochs": 0}
    assert COMPONENTS["no-retention"].changes == {"defense.retain_weight": 0.0}


@pytest.mark.parametrize("component", COMPONENTS)
def test_an_ablation_changes_one_setting_of_the_default_defense(component: str) -> None:
    before = tree = TrialConfig(defense=Ubt()).as_json()
    for path, value in COMPONENTS[component].changes.items():
        tree = set_path(tree, path, value)
    after = TrialConfig.model_validate(tree).defense.as_json()
    assert len([name for name, value in after.items() if value != before["defense"][name]]) == 1  # type: ignore[index,call-overload]


def test_every_ablation_has_words_of_its_own() -> None:
    assert len({one.words for one in COMPONENTS.values()}) == len(COMPONENTS)


def test_a_trial_says_what_it_leaves_out_in_words() -> None:
    design = LeaveOneOut(components=("no-overfit",))
    base, ablated = (design.label(changes) for changes in design.layout())
    assert (base.leaves_out, ablated.leaves_out) == ("", "without overfitting")
    assert ablated.component == "no-overfit"
