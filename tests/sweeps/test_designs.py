from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from sweeps.search.adaptive import Adaptive
from sweeps.search.base import DESIGNS, Search, SearchConfig
from sweeps.search.designs import COMPONENTS, Concat, Grid, LeaveOneOut, ListDesign, OneFactorAtATime, Pairs, ZipDesign
from sweeps.search.proposals import DesignProposer, Outcome, Proposal
from sweeps.search.space import Range
from sweeps.study.config import StudyConfig

SEARCH: TypeAdapter[Search] = TypeAdapter(SearchConfig)
RATIO, EPOCHS, SAMPLES = "defense.suspicious_ratio", "defense.overfit_epochs", "defense.unlearn_samples"
SPACE = {RATIO: [0.01, 0.02], EPOCHS: Range(low=1, high=3)}
LEAST = {
    "space": SPACE,
    "trials": [{RATIO: 0.1}, {}],
    "designs": [{"design": "ofat", "space": SPACE}, {"design": "list", "trials": [{RATIO: 0.02}]}],
    "attacks": {"sig": {"kind": "sig"}},
    "defenses": {
        "none": {"defense": {"kind": "none"}},
        "ubt": {"defense": {"kind": "ubt"}, "search": {"design": "grid", "space": {EPOCHS: [1, 2]}}},
    },
}
"""Enough for any design to be made."""
ALIKE = {"zip": {"space": {RATIO: [0.01, 0.02], EPOCHS: [1, 3]}}, "comparison": {"space": {}}}
"""What a design needs besides: zip wants lists of one length, and a comparison leaves spaces to its defenses."""


def design_of(row: type[Search]) -> str:
    return str(row.model_fields["design"].default)


def make(row: type[Search], **fields: object) -> Search:
    least = LEAST | ALIKE.get(design_of(row), {})
    return row.model_validate({name: value for name, value in least.items() if name in row.model_fields} | fields)


def of_study(search: Search, **fields: object) -> StudyConfig:
    return StudyConfig.model_validate({"name": "toy", "search": search.model_dump(), **fields})


@pytest.mark.parametrize("row", list(DESIGNS), ids=design_of)
class TestEveryDesign:
    def test_is_found_by_its_name(self, row: type[Search]) -> None:
        assert type(SEARCH.validate_python({"design": design_of(row), **make(row).model_dump()})) is row

    def test_survives_json(self, row: type[Search]) -> None:
        design = make(row)
        assert SEARCH.validate_json(design.model_dump_json()) == design

    def test_says_what_it_is(self, row: type[Search]) -> None:
        assert row.__doc__
        schema = row.model_json_schema()
        assert [name for name, field in schema["properties"].items() if "description" not in field] in ([], ["design"])

    def test_refuses_unknown_fields(self, row: type[Search]) -> None:
        with pytest.raises(ValidationError, match="Extra inputs"):
            make(row, spcae={})

    def test_expands_to_configurations_of_allowed_paths(self, row: type[Search]) -> None:
        study = of_study(make(row))
        assert study.layout()
        for changes in study.layout():
            study.trial(changes)
        if study.search.chosen_later:
            with pytest.raises(NotImplementedError):
                study.search.layout()
        else:
            assert study.search.layout()

    def test_a_study_runs_no_configuration_twice(self, row: type[Search]) -> None:
        study = of_study(make(row), defense={"kind": "ubt", "suspicious_ratio": 0.01, "overfit_epochs": 2})
        trials = [study.trial(changes).model_dump_json() for changes in study.layout()]
        assert len(set(trials)) == len(trials)


def test_an_unknown_design_is_refused() -> None:
    with pytest.raises(ValidationError):
        SEARCH.validate_python({"design": "gird", "space": {}})


def test_a_grid_is_every_combination_with_the_last_path_varying_fastest() -> None:
    assert Grid(space={RATIO: [0.01, 0.02], EPOCHS: [1, 3]}).layout() == [
        {RATIO: 0.01, EPOCHS: 1},
        {RATIO: 0.01, EPOCHS: 3},
        {RATIO: 0.02, EPOCHS: 1},
        {RATIO: 0.02, EPOCHS: 3},
    ]


def test_a_grid_of_nothing_is_the_base() -> None:
    assert Grid().layout() == [{}]


@given(st.lists(st.lists(st.integers(), unique=True, min_size=1, max_size=5), max_size=4))
def test_a_grid_has_the_product_of_its_sizes_and_no_repeats(axes: list[list[int]]) -> None:
    space = {f"p{number}": values for number, values in enumerate(axes)}
    layout = Grid(space=space).layout()
    assert len(layout) == math.prod(map(len, axes))
    assert len({tuple(changes.items()) for changes in layout}) == len(layout)
    assert all(changes[path] in space[path] for changes in layout for path in space)


def test_a_grid_over_a_range_without_steps_cannot_be_expanded() -> None:
    with pytest.raises(ValueError, match="needs `step`"):
        Grid(space={RATIO: Range(low=0.1, high=0.2)}).layout()


def test_one_factor_at_a_time_is_the_base_and_each_value_alone() -> None:
    assert OneFactorAtATime(space={RATIO: [0.01, 0.02], EPOCHS: [3]}).layout() == [
        {},
        {RATIO: 0.01},
        {RATIO: 0.02},
        {EPOCHS: 3},
    ]


@given(st.lists(st.lists(st.integers(), unique=True, min_size=1, max_size=5), max_size=4))
def test_one_factor_at_a_time_grows_with_the_sum_of_the_sizes(axes: list[list[int]]) -> None:
    layout = OneFactorAtATime(space={f"p{number}": values for number, values in enumerate(axes)}).layout()
    assert len(layout) == 1 + sum(map(len, axes))
    assert all(len(changes) == 1 for changes in layout[1:])


def test_a_list_is_taken_as_it_stands() -> None:
    trials = [{}, {RATIO: 0.1, EPOCHS: 2}, {"defense": {"kind": "none"}}]
    assert ListDesign(trials=trials).layout() == trials


def test_an_empty_list_of_trials_is_refused() -> None:
    with pytest.raises(ValidationError):
        ListDesign(trials=[])


def test_an_adaptive_search_needs_a_space_and_has_no_layout() -> None:
    with pytest.raises(ValidationError, match="needs a space"):
        Adaptive()
    with pytest.raises(NotImplementedError):
        Adaptive(space=SPACE).layout()


def test_a_study_leaves_out_what_the_base_has_already() -> None:
    """So that the base is run once: `{path: its own value}` is no other configuration."""
    study = of_study(OneFactorAtATime(space={SAMPLES: [32, 64]}), defense={"kind": "ubt", "unlearn_samples": 64})
    assert study.layout() == [{}, {SAMPLES: 32}]


def test_a_study_leaves_out_repeats_and_keeps_the_order() -> None:
    trials = [{SAMPLES: 8}, {}, {SAMPLES: 8}, {SAMPLES: 64, EPOCHS: 2}, {EPOCHS: 2}]
    study = of_study(ListDesign(trials=trials), defense={"kind": "ubt", "unlearn_samples": 64})
    assert study.layout() == [{SAMPLES: 8}, {}, {EPOCHS: 2}]


def test_a_part_that_the_base_does_not_have_is_a_difference() -> None:
    trials = [{"defense": {"kind": "none"}}, {"victim.attack": {"kind": "sig"}}]
    assert of_study(ListDesign(trials=trials)).layout() == trials


def test_a_design_is_proposed_in_order_and_then_exhausted() -> None:
    proposer = DesignProposer([Proposal(0), Proposal(1, {RATIO: 0.1})])
    assert not proposer.exhausted
    assert proposer.propose() == Proposal(0, {})
    proposer.tell(Proposal(0, {}), Outcome(None))
    assert proposer.propose() == Proposal(1, {RATIO: 0.1})
    assert proposer.exhausted
    assert proposer.propose() is None
    proposer.finish()


def test_pairs_are_the_base_and_the_grid_of_each_two_paths() -> None:
    layout = Pairs(space={RATIO: [0.01, 0.02], EPOCHS: [1], SAMPLES: [8, 16]}).layout()
    assert layout[0] == {}
    assert layout[1:] == [
        *({RATIO: ratio, EPOCHS: 1} for ratio in (0.01, 0.02)),
        *({RATIO: ratio, SAMPLES: samples} for ratio in (0.01, 0.02) for samples in (8, 16)),
        *({EPOCHS: 1, SAMPLES: samples} for samples in (8, 16)),
    ]


def test_pairs_of_one_path_are_refused() -> None:
    with pytest.raises(ValidationError, match="at least two"):
        Pairs(space={RATIO: [0.01]})


def test_zip_advances_all_paths_together() -> None:
    layout = ZipDesign(space={RATIO: [0.01, 0.02], EPOCHS: [1, 3]}).layout()
    assert layout == [{RATIO: 0.01, EPOCHS: 1}, {RATIO: 0.02, EPOCHS: 3}]


def test_zip_of_lists_of_different_length_says_which() -> None:
    with pytest.raises(ValueError, match=r"suspicious_ratio has 2.*overfit_epochs has 1"):
        ZipDesign(space={RATIO: [0.01, 0.02], EPOCHS: [1]}).layout()


def test_leave_one_out_switches_each_component_off_alone() -> None:
    study = of_study(LeaveOneOut())
    layout = study.layout()
    assert layout[0] == {}
    assert len(layout) == len(COMPONENTS) + 1  # each row of the table differs from the base and from the others
    for changes in layout:
        study.trial(changes)


def test_leave_one_out_takes_the_components_that_are_named_and_refuses_others() -> None:
    assert LeaveOneOut(components=("whole-captions",)).layout() == [{}, {"defense.unlearn_scope": "caption"}]
    with pytest.raises(ValidationError, match="no-such"):
        LeaveOneOut(components=("no-such",))


def test_concat_runs_what_its_designs_have_in_common_once() -> None:
    study = of_study(
        Concat(designs=[OneFactorAtATime(space={RATIO: [0.01, 0.02]}), Grid(space={RATIO: [0.02], EPOCHS: [1]})]),
        defense={"kind": "ubt", "suspicious_ratio": 0.01, "overfit_epochs": 1},
    )
    assert study.layout() == [{}, {RATIO: 0.02}]


def test_a_path_exists_only_where_its_condition_holds() -> None:
    threshold, scope = "defense.token_threshold", "defense.unlearn_scope"
    search = Grid(space={scope: ["token", "caption"], threshold: [0.05, 0.1, 0.2]}, when={threshold: {scope: "token"}})
    study = of_study(search, defense={"kind": "ubt", "token_threshold": 0.1})
    assert study.layout() == [{threshold: 0.05}, {}, {threshold: 0.2}, {scope: "caption"}]


def test_a_condition_may_name_several_values_and_look_at_the_base() -> None:
    search = Grid(space={SAMPLES: [8, 16]}, when={SAMPLES: {EPOCHS: [1, 2]}})
    assert len(of_study(search, defense={"kind": "ubt", "overfit_epochs": 2}).layout()) == 2
    assert of_study(search, defense={"kind": "ubt", "overfit_epochs": 3}).layout() == [{}]
