from typing import Annotated, Literal

import pytest
from pydantic import Field

from ubt.common.errors import UserError
from ubt.config import Config, read_yaml, validate
from ubt.trials.config import TrialConfig


def problems(tree, model=TrialConfig):
    with pytest.raises(UserError) as caught:
        validate(model, tree, "study.yaml")
    return {problem.where.removeprefix("study.yaml: "): problem for problem in caught.value.problems}


def test_every_mistake_of_a_file_is_reported_at_once_with_its_path_and_value():
    found = problems(
        {
            "victim": {
                "data": {"kind": "scenes", "noise": -1, "train_pairs": "many"},
                "attack": {"kind": "badnet"},
                "implant": {"epochs": 0},
                "pretrian": {"epochs": 2},
            },
            "defense": {"kind": "ubt", "unlearn_loss": "hing", "suspicious_ratio": float("nan"), "unlearn_epochs": 2.5},
            "extra": 1,
        }
    )
    given = {where: problem.given for where, problem in found.items()}
    ratio = given.pop("defense.suspicious_ratio")
    assert ratio != ratio, "NaN was given"  # noqa: PLR0124
    assert given == {
        "victim.data.noise": -1,
        "victim.data.train_pairs": "many",
        "victim.attack.kind": "badnet",
        "victim.implant.epochs": 0,
        "victim.pretrian": {"epochs": 2},
        "defense.unlearn_loss": "hing",
        "defense.unlearn_epochs": 2.5,
        "extra": 1,
    }
    assert "greater than or equal to 0" in found["victim.data.noise"].message
    assert "greater than or equal to 1" in found["victim.implant.epochs"].message
    assert "finite" in found["defense.suspicious_ratio"].message


def test_what_is_allowed_is_listed():
    found = problems({"victim": {"attack": {"kind": "badnet"}}, "defense": {"kind": "ubt", "unlearn_loss": "hing"}})
    assert found["victim.attack.kind"].message.startswith("unknown attack; allowed: badnets, blended, sig")
    assert found["defense.unlearn_loss"].message == "unknown; allowed: 'hinge' or 'ascent'"


@pytest.mark.parametrize(
    ("tree", "where", "meant"),
    [
        ({"victm": {}}, "victm", "victim"),
        ({"victim": {"pretrian": {}}}, "victim.pretrian", "pretrain"),
        ({"victim": {"data": {"kind": "scenes", "nosie": 3}}}, "victim.data.nosie", "noise"),
        ({"defense": {"kind": "ubt", "token_treshold": 0.2}}, "defense.token_treshold", "token_threshold"),
    ],
)
def test_a_name_that_is_nearly_right_gets_a_suggestion(tree, where, meant):
    assert problems(tree)[where].advice == f"did you mean `{meant}`?"


@pytest.mark.parametrize(
    ("tree", "where"),
    [
        ({"defense": {"kind": "none", "suspicious_ratio": 0.1}}, "defense.suspicious_ratio"),
        ({"noise": 1}, "noise"),
        ({"victim": {"implant": {"patch_fraction": 0.1}}}, "victim.implant.patch_fraction"),
    ],
)
def test_nothing_is_suggested_that_would_be_refused_there(tree, where):
    assert "did you mean" not in problems(tree)[where].advice
    assert "ubt schema" in problems(tree)[where].advice


class Inner(Config):
    kind: Literal["inner"] = "inner"
    epochs: int = 1


class Other(Config):
    kind: Literal["other"]
    width: int


class Holder(Config):
    parts: tuple[Annotated[Inner | Other, Field(discriminator="kind")], ...] = ()
    maybe: Inner | None = None
    named: dict[str, Inner] = Field(default_factory=dict)


@pytest.mark.parametrize(
    ("tree", "where", "advice"),
    [
        ({"parts": [{"kind": "inner"}, {"kind": "inner", "epoch": 2}]}, "parts.1.epoch", "did you mean `epochs`?"),
        ({"maybe": {"epoch": 2}}, "maybe.epoch", "did you mean `epochs`?"),
        ({"named": {"x": {"epoch": 2}}}, "named.x.epoch", "did you mean `epochs`?"),
        ({"parts": [{"kind": "other", "width": "wide"}]}, "parts.0.width", ""),
        ({"parts": [{"kind": "other"}]}, "parts.0.width", ""),
        ({"parts": [{"kind": "neither"}]}, "parts.0.kind", ""),
        ({"parts": [{"width": 3}]}, "parts.0.kind", ""),
    ],
)
def test_paths_are_as_the_user_wrote_them_without_names_of_union_members(tree, where, advice):
    found = problems(tree, Holder)
    assert list(found) == [where]
    assert found[where].advice == advice


def test_what_is_missing_is_named():
    found = problems({"victim": {"data": {"kind": "csv"}}})
    assert set(found) == {"victim.data.labels", "victim.data.classes", "victim.data.pairs"}
    assert {problem.message for problem in found.values()} == {"is required"}


@pytest.mark.parametrize(("kind", "message"), [({"ratio": 0.1}, "is required"), ({"kind": 3}, "is a name; allowed")])
def test_a_union_needs_a_kind_it_knows(kind, message):
    assert message in problems({"defense": kind})["defense.kind"].message


def test_a_rule_over_several_fields_is_reported_in_its_own_words():
    found = problems({"victim": {"model": {"pretrained": "openai", "random_weights": True}}})
    assert found["victim.model"].message.startswith("give one of `pretrained`")


@pytest.mark.parametrize("tree", [{"victim": [1]}, {"defense": "ubt"}, {"victim": {"data": 3}}])
def test_a_single_value_where_an_object_belongs_is_a_mistake_not_a_crash(tree):
    assert list(problems(tree)) in (["victim"], ["defense"], ["victim.data"])


def test_a_valid_tree_becomes_a_model_with_numbers_coerced():
    trial = validate(TrialConfig, {"defense": {"kind": "ubt", "suspicious_ratio": "1e-2"}}, "study.yaml")
    assert trial.as_json()["defense"]["suspicious_ratio"] == 0.01  # YAML 1.1 reads 1e-2 as text


def test_yaml_is_read(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text("name: ä\nvictim: {}\n", encoding="utf-8")
    assert read_yaml(path) == {"name": "ä", "victim": {}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: [1", "is not valid YAML"),
        (b"- 1\n- 2\n", "must hold a mapping"),
        (b"", "must hold a mapping"),
        (b"\xff\xfe\x00", "cannot be read"),
        (b"a: !!python/object/apply:os.system ['true']", "the tag `!!python/object/apply:os.system` is not allowed"),
    ],
)
def test_what_is_no_mapping_in_yaml_is_refused_with_the_file_name(tmp_path, content, message):
    path = tmp_path / "study.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        read_yaml(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 2


def test_a_file_that_is_not_there_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        read_yaml(tmp_path / "study.yaml")
    with pytest.raises(UserError, match="cannot be read"):
        read_yaml(tmp_path)


@pytest.mark.parametrize(
    "text", ["seeds: [0]\nname: a\nseeds: [1]\n", "victim:\n  attack: {kind: sig, kind: badnets}\n"]
)
def test_a_key_that_is_given_twice_is_reported_with_both_places(tmp_path, text):
    path = tmp_path / "study.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"is given twice.*line.*and again.*line"):
        read_yaml(path)


def test_a_key_may_stand_in_several_mappings_and_beside_a_merge(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text("a: &base {k: 1, m: 2}\nb: {<<: *base, k: 3}\n")
    assert read_yaml(path) == {"a": {"k": 1, "m": 2}, "b": {"k": 3, "m": 2}}
