"""The ablations of `leave_one_out`: every choice that UBT's settings offer is one of them."""

from __future__ import annotations

from typing import Literal, get_args, get_origin

import pytest

from sweeps.search.designs import COMPONENTS
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
    assert [changes for changes in COMPONENTS.values() if changes == {f"defense.{name}": choice}]


def test_what_can_be_left_out_altogether_is() -> None:
    assert COMPONENTS["no-overfit"] == {"defense.overfit_epochs": 0}
    assert COMPONENTS["no-retention"] == {"defense.retain_weight": 0.0}


@pytest.mark.parametrize("component", COMPONENTS)
def test_an_ablation_changes_one_setting_of_the_default_defense(component: str) -> None:
    before = tree = TrialConfig(defense=Ubt()).as_json()
    for path, value in COMPONENTS[component].items():
        tree = set_path(tree, path, value)
    after = TrialConfig.model_validate(tree).defense.as_json()
    assert len([name for name, value in after.items() if value != before["defense"][name]]) == 1  # type: ignore[index,call-overload]
