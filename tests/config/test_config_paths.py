import copy
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps.study.config import StudyConfig
from ubt.common.errors import UserError
from ubt.config import difference, get_path, parse_assignment, set_path
from ubt.trials.config import TrialConfig

NAMES = st.text("abc_", min_size=1, max_size=3)
PATHS = st.lists(NAMES, min_size=1, max_size=4).map(".".join)
LEAVES = st.none() | st.integers() | st.text(max_size=3) | st.lists(st.integers(), max_size=2)
TREES = st.recursive(
    st.dictionaries(NAMES, LEAVES, max_size=3), lambda inner: st.dictionaries(NAMES, inner | LEAVES, max_size=3)
)


def leaves(tree, prefix=""):
    """Return path → value of everything in a tree that is no object with fields."""
    found = {}
    for name, value in tree.items():
        inner = isinstance(value, dict) and value
        found |= leaves(value, f"{prefix}{name}.") if inner else {f"{prefix}{name}": value}
    return found


def leads_through_a_value(tree, path):
    head, _, rest = path.partition(".")
    if not rest or tree.get(head) is None:
        return False
    return not isinstance(tree[head], dict) or leads_through_a_value(tree[head], rest)


@given(TREES, PATHS, LEAVES)
def test_what_is_set_is_found_and_nothing_else_changes(tree, path, value):
    if leads_through_a_value(tree, path):
        return
    before = copy.deepcopy(tree)
    changed = set_path(tree, path, value)
    assert tree == before, "the original is left alone"
    assert get_path(changed, path) == value
    others = {other: leaf for other, leaf in leaves(tree).items() if not f"{other}.".startswith(f"{path}.")}
    kept = leaves(changed)
    assert all(kept.get(other) == leaf for other, leaf in others.items() if not f"{path}.".startswith(f"{other}."))


@given(TREES, PATHS, LEAVES)
def test_a_path_through_a_single_value_is_refused(tree, path, value):
    if leads_through_a_value(tree, path):
        with pytest.raises(UserError, match="it has no fields"):
            set_path(tree, path, value)


@pytest.mark.parametrize("single", [0, 0.0, False, "", [], 3, "ubt"])
def test_no_single_value_is_overwritten_by_an_object_however_empty_it_looks(single):
    with pytest.raises(UserError, match="`defense` is a single value"):
        set_path({"defense": single}, "defense.kind", "ubt")


@pytest.mark.parametrize("tree", [{}, {"defense": None}, {"defense": {}}])
def test_objects_on_the_way_are_made(tree):
    assert set_path(tree, "defense.unlearn.epochs", 3) == {"defense": {"unlearn": {"epochs": 3}}}


@pytest.mark.parametrize("detector", ["knn", {"kind": "knn"}])
def test_a_bare_name_on_the_way_stands_for_the_object_of_that_kind(detector):
    tree = {"defense": {"kind": "ubt", "detector": detector}}
    found = set_path(tree, "defense.detector.neighbours", 4, TrialConfig)
    assert found == {"defense": {"kind": "ubt", "detector": {"kind": "knn", "neighbours": 4}}}


@pytest.mark.parametrize("rest", [{}, {"detector": None}, {"detector": {}}])
def test_a_kind_that_is_missing_on_the_way_is_the_defaults(rest):
    found = set_path({"defense": {"kind": "ubt", **rest}}, "defense.detector.neighbours", 4, TrialConfig)
    assert found == {"defense": {"kind": "ubt", "detector": {"kind": "clean", "neighbours": 4}}}


@pytest.mark.parametrize("path", ["defense.attribution.x", "defense.kind.x", "victim.attack.x"])
def test_only_where_a_name_may_stand_for_an_object(path):
    tree = {"victim": {"attack": "badnets"}, "defense": {"kind": "ubt", "attribution": "chefer"}}
    with pytest.raises(UserError, match=f"{path}: .* is a single value"):
        set_path(tree, path, 1, TrialConfig)


@pytest.mark.parametrize("tree", [{"defense": {"kind": "unheard-of", "detector": "knn"}}, {"defense": 3}])
def test_nothing_is_taken_for_an_object_where_it_is_not_known_what_may_stand_there(tree):
    with pytest.raises(UserError, match="is a single value"):
        set_path(tree, "defense.detector.neighbours", 4, TrialConfig)


def test_what_an_optional_field_and_a_mapping_of_names_hold_is_known_too():
    def spelt_out(detector):
        return {"search": {"design": "comparison", "defenses": {"a": {"defense": {"kind": "ubt", **detector}}}}}

    path = "search.defenses.a.defense.detector.neighbours"
    found = set_path(spelt_out({"detector": "lof"}), path, 4, StudyConfig)
    assert found == spelt_out({"detector": {"kind": "lof", "neighbours": 4}})


@pytest.mark.parametrize("path", ["a.x", "b", "a.b.c", "a.b.c.d", ""])
def test_a_path_that_does_not_exist_is_a_key_error(path):
    with pytest.raises(KeyError):
        get_path({"a": {"b": [1, 2]}}, path)


@given(TREES, st.lists(st.tuples(PATHS, LEAVES), max_size=4))
def test_a_tree_is_its_base_with_the_differences_put_in(base, changes):
    tree = base
    for path, value in changes:
        if not leads_through_a_value(tree, path):
            tree = set_path(tree, path, value)
    again = base
    for path, value in difference(tree, base).items():
        again = set_path(again, path, value)
    assert again == tree


@given(TREES)
def test_a_tree_does_not_differ_from_itself_and_differs_from_nothing_in_its_leaves(tree):
    assert difference(tree, tree) == {}
    assert set(difference(tree, {})) == set(tree)


def test_a_difference_names_leaves_not_the_objects_they_are_in():
    base = {"victim": {"data": {"noise": 8.0}}, "defense": {"kind": "ubt", "ratio": 0.1, "epochs": [1, 2]}}
    tree = {"victim": {"data": {"noise": 8.0}}, "defense": {"kind": "ubt", "ratio": 0.2, "epochs": [1, 3]}}
    assert difference(tree, base) == {"defense.ratio": 0.2, "defense.epochs": [1, 3]}


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("defense.overfit_epochs=3", "defense.overfit_epochs", 3),
        ("a=0.1", "a", 0.1),
        (" a =true", "a", True),
        ("a=[1, 2]", "a", [1, 2]),
        ("a=banana", "a", "banana"),
        ("a=x=y", "a", "x=y"),
        ("a=", "a", None),
        ("a='1'", "a", "1"),
    ],
)
def test_an_assignment_is_a_path_and_a_yaml_value(text, path, value):
    assert parse_assignment(text) == (path, value)


@pytest.mark.parametrize("text", ["defense.overfit_epochs", "=3", "  =3", ""])
def test_an_assignment_needs_a_path_and_an_equals_sign(text):
    with pytest.raises(UserError, match="PATH=VALUE"):
        parse_assignment(text)


def test_an_assignment_of_broken_yaml_is_refused():
    with pytest.raises(UserError, match="--set a: is not valid YAML"):
        parse_assignment("a=[1")


def test_infinity_is_read_but_no_setting_takes_it():
    assert parse_assignment("a=.inf") == ("a", math.inf)  # `Config` refuses it, with the path


SPACE = {
    "search": {"design": "grid", "space": {"defense.kind": ["ubt"], "defense.overfit_epochs": {"low": 1, "high": 3}}}
}


@pytest.mark.parametrize(
    ("path", "where"),
    [
        ("search.space.defense.kind", ["search", "space", "defense.kind"]),
        ("search.space.defense.kind.0", ["search", "space", "defense.kind", 0]),
        ("search.space.defense.overfit_epochs.high", ["search", "space", "defense.overfit_epochs", "high"]),
        ('search.space."defense.overfit_epochs".step', ["search", "space", "defense.overfit_epochs", "step"]),
        ("search.space.defense.token_threshold", ["search", "space", "defense.token_threshold"]),
        ("search.space.defense.kind.new", ["search", "space", "defense.kind.new"]),
        ("search.when.defense.kind.defense.x", ["search", "when", "defense.kind", "defense.x"]),
        ("search.when.victim.attack.kind.defense.a.b", ["search", "when", "victim.attack.kind", "defense.a.b"]),
        ('search.when."defense.a"."victim.b.victim"', ["search", "when", "defense.a", "victim.b.victim"]),
    ],
)
def test_keys_that_have_dots_are_reached(path, where):
    node = set_path(SPACE, path, "new", StudyConfig)
    for part in where:
        node = node[part]
    assert node == "new"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("search.space.defense.overfit_epochs.step", r'"defense\.overfit_epochs"\.step or .*epochs\.step"'),
        ("search.when.defense.a.defense.b.defense.c", "where does its first key end"),
        ('search.space."defense.kind', "a quote stands around a whole key"),
        ('search.space."defense.kind"x', "a quote stands around a whole key"),
        ("search.space.defense.kind.7", "`defense.kind` has 1 items, which are counted from 0"),
        ("a" + ".a" * 3000, "at most 64 parts"),
    ],
)
def test_a_path_that_may_mean_several_fields_or_none_is_told(path, message):
    with pytest.raises(UserError, match=message):
        set_path(SPACE, path, 1, StudyConfig)


def test_items_of_lists_are_counted_from_0():
    assert set_path({"seeds": [0, 1]}, "seeds.1", 7) == {"seeds": [0, 7]}
    assert set_path({"metrics": ["retrieval"]}, "metrics.0.pairs", 9, StudyConfig) == {
        "metrics": [{"kind": "retrieval", "pairs": 9}]
    }
