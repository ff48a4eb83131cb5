"""`extends`: a study's file over another's, as a JSON merge patch (RFC 7396)."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sweeps.planning.plan import plan_study
from sweeps.study.loading import absolute, load_study, patched, read_study, study_schema
from ubt.common.errors import UserError

Write = Callable[..., str]

JSON = st.recursive(
    st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=12,
)
PATCHES = st.recursive(
    st.none() | st.integers(),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=12,
)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a study file and return its path."""

    def write(file: str, /, **tree: object) -> str:
        path = tmp_path / file
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump(tree))
        return str(path)

    return write


def told(reference: str) -> str:
    with pytest.raises(UserError) as caught:
        load_study(reference)
    return str(caught.value)


@pytest.mark.parametrize(
    ("base", "patch", "expected"),
    [  # of RFC 7396, appendix A
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        ({"a": "b"}, ["c"], ["c"]),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_fields_merge_as_in_the_standard(base: object, patch: object, expected: object) -> None:
    assert patched(base, patch) == expected


@given(JSON, PATCHES)
def test_a_patch_says_all_that_it_says_and_a_second_time_changes_nothing(base: object, patch: object) -> None:
    once = patched(base, patch)
    assert patched(once, patch) == once
    assert patched(base, {}) == (base if isinstance(base, dict) else {})


@pytest.mark.parametrize("tag", ["kind", "design"])
def test_another_kind_replaces_the_whole(tag: str) -> None:
    base = {"data": {tag: "scenes", "noise": 1}}
    assert patched(base, {"data": {tag: "csv", "pairs": "p"}}) == {"data": {tag: "csv", "pairs": "p"}}
    assert patched(base, {"data": {tag: "scenes", "more": 2}}) == {"data": {tag: "scenes", "noise": 1, "more": 2}}
    assert patched(base, {"data": {"noise": 2}}) == {"data": {tag: "scenes", "noise": 2}}


def test_a_study_says_only_what_differs(write: Write) -> None:
    mine = load_study(write("mine.yaml", extends="table", search={"defenses": {"par": None, "ubt": None}}, seeds=[7]))
    table = load_study("table")
    assert mine.name == "mine"
    assert mine.seeds == (7,)
    assert mine.victim == table.victim
    assert list(mine.search.defenses) == [name for name in table.search.defenses if name not in ("par", "ubt")]
    assert mine.search.attacks == table.search.attacks


@pytest.mark.parametrize("detector", ["knn", {"kind": "knn"}, {"kind": "knn", "neighbours": 8}])
def test_settings_over_a_bare_name_keep_its_kind(write: Write, detector: object) -> None:
    write("base.yaml", extends="smoke", defense={"detector": detector})
    mine = load_study(write("mine.yaml", extends="base.yaml", defense={"detector": {"neighbours": 4}}))
    assert mine.defense.detector.as_json() == {"kind": "knn", "neighbours": 4}


def test_a_bare_name_over_settings_stands_for_its_defaults(write: Write) -> None:
    write("base.yaml", extends="smoke", defense={"detector": {"kind": "knn", "neighbours": 4}})
    mine = load_study(write("mine.yaml", extends="base.yaml", defense={"detector": "knn"}))
    assert mine.defense.detector.as_json() == {"kind": "knn", "neighbours": 16}


def test_settings_over_nothing_are_those_of_the_default(write: Write) -> None:
    mine = write("mine.yaml", extends="demo", defense={"detector": {"neighbours": 4}})
    assert "defense.detector.neighbours: unknown field" in told(mine)
    assert "`clean` has no settings" in told(mine)


def test_names_and_settings_are_set_in_any_order() -> None:
    kind, neighbours = "defense.detector=knn", "defense.detector.neighbours=4"
    expected = {"kind": "knn", "neighbours": 4}
    assert load_study("demo", [kind, neighbours]).defense.detector.as_json() == expected
    assert load_study("demo", [neighbours, "defense.detector.kind=knn"]).defense.detector.as_json() == expected


def test_an_unknown_setting_of_a_kind_with_few_is_told_with_those_there_are() -> None:
    with pytest.raises(UserError, match="`knn` has `neighbours`"):
        load_study("demo", ["defense.detector=knn", "defense.detector.radius=4"])


def test_searched_names_and_settings_merge(write: Write) -> None:
    space = {"defense.detector": ["knn", "lof"], "defense.detector.neighbours": [4, 8]}
    tree = {"extends": "smoke", "defense": {"detector": "knn"}, "search": {"design": "grid", "space": space}}
    mine = load_study(write("mine.yaml", **tree))
    found = {str(mine.trial(proposal.changes).defense.detector) for proposal in mine.proposals()}
    assert found == {f"kind='{kind}' neighbours={number}" for kind in ("knn", "lof") for number in (4, 8)}


def test_set_comes_after_all_files(write: Write) -> None:
    mine = write("mine.yaml", extends="smoke", defense={"overfit_epochs": 2})
    assert load_study(mine, ["defense.overfit_epochs=4"]).defense.overfit_epochs == 4


def test_each_file_s_paths_start_at_its_own_folder(write: Write, tmp_path: Path) -> None:
    data = {"kind": "csv", "pairs": "pairs.csv", "labels": "labels.csv", "classes": "classes.txt"}
    write("base/lab.yaml", victim={"data": data}, store="artifacts", defense={"kind": "ubt", "overfit_epochs": 2})
    write("middle.yaml", name="middle", extends="base/lab.yaml", victim={"data": {"labels": "mine.csv"}})
    study = load_study(write("mine/mine.yaml", extends="../middle.yaml", store="own"))
    assert (study.name, study.defense.overfit_epochs) == ("mine", 2)
    assert study.victim.data.pairs.resolve() == tmp_path / "base/pairs.csv"
    assert study.victim.data.labels.resolve() == tmp_path / "mine.csv"
    assert study.store == str(tmp_path / "mine/own")


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ("a.tar", "{0}/a.tar"),
        ("a.tar::b-{000..009}.tar", "{0}/a.tar::{0}/b-{000..009}.tar"),
        ("a.tar::https://host/b.tar", "{0}/a.tar::https://host/b.tar"),
        ("https://host/b.tar::/x/a.tar", "https://host/b.tar::/x/a.tar"),
        ("a.tar::~/b.tar", "{0}/a.tar::{1}/b.tar"),
    ],
)
def test_each_pattern_of_shards_starts_at_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, made: str
) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    expected = made.replace("{0}", str(tmp_path)).replace("{1}", "/home/somebody")
    assert absolute(given, "victim.data.pairs", tmp_path) == expected
    assert absolute({"victim.data.pairs": [given]}, "search.space", tmp_path) == {"victim.data.pairs": [expected]}


def test_an_address_of_a_store_stays_as_it_is(tmp_path: Path) -> None:
    assert absolute("simplecache::s3://bucket/ubt", "store", tmp_path) == "simplecache::s3://bucket/ubt"


class TestMistakes:
    def test_a_home_of_nobody(self, write: Write) -> None:
        mine = write("mine.yaml", extends="smoke", store="~no-such-user/x")
        assert told(mine).startswith(f"{mine}: store: begins with a home folder that does not exist")
        assert told("~no-such-user/mine.yaml").startswith("~no-such-user/mine.yaml: begins with a home folder")
        with pytest.raises(UserError, match="--set: store: begins with a home folder"):
            load_study("smoke", ["store=~no-such-user/x"])

    def test_what_is_extended_does_not_exist(self, write: Write) -> None:
        mine = write("mine.yaml", extends="tabel")
        assert told(mine).startswith(f"{mine}: extends: tabel: is neither a file nor a built-in study; built in: abl")

    def test_it_is_no_name(self, write: Write) -> None:
        mine = write("mine.yaml", extends=["smoke", "table"])
        assert f"{mine}: extends: needs one study's name or file (given: ['smoke', 'table'])" in told(mine)

    @pytest.mark.parametrize("files", [["a.yaml"], ["a.yaml", "b.yaml"], ["a.yaml", "f/b.yaml", "c.yaml"]])
    def test_it_goes_round_in_a_circle(self, write: Write, tmp_path: Path, files: list[str]) -> None:
        for file, extended in zip(files, [*files[1:], files[0]], strict=True):
            write(file, extends=str(tmp_path / extended) if "/" in file else extended)
        names = [Path(file).stem for file in [*files, files[0]]]
        assert f"goes round in a circle: {' → '.join(names)}" in told(str(tmp_path / "a.yaml"))

    def test_a_wrong_field_of_what_is_extended_is_told(self, write: Write) -> None:
        write("base.yaml", defense={"kind": "ubt", "suspicous_ratio": 0.1})
        mine = write("mine.yaml", extends="base.yaml", seeds=["one"])
        assert re.search(r"(?s)seeds\.0.*suspicous_ratio|suspicous_ratio.*seeds\.0", told(mine))

    def test_what_is_extended_is_no_yaml(self, write: Write, tmp_path: Path) -> None:
        (tmp_path / "base.yaml").write_text("victim: [")
        assert "base.yaml: is not valid YAML" in told(write("mine.yaml", extends="base.yaml"))


def test_the_schema_knows_the_field_and_asks_for_no_other() -> None:
    schema = study_schema()
    assert "extends" in schema["properties"]
    assert schema["required"] == []
    assert set(read_study("ablation-ratio")) <= set(schema["properties"])


def test_null_says_that_no_attack_is_known(write):
    write("base.yaml", extends="ablation-ratio", victim={"attack": {"kind": "sig"}})
    assert load_study(write("mine.yaml", extends="base.yaml", victim={"attack": None})).victim.attack is None
    assert load_study("ablation-ratio", ["victim.attack=null"]).victim.attack is None
    # Where the default is null anyway, the field is left out as before.
    assert load_study(write("mine.yaml", extends="base.yaml", victim={"poison": None})).victim.poison is None
    known = load_study(
        str(write("mine.yaml", extends="ablation-ratio", victim={"attack": None})), ["victim.attack.kind=wanet"]
    )
    assert known.victim.attack is not None
    assert known.victim.attack.label == "WaNet"


LONG = "a" * 300
CSV = "victim.data={kind: csv, pairs: p.csv, labels: l.csv, classes: c.txt}"
SHARDS = "victim.data={kind: webdataset, pairs: %s.tar, labels: l.csv, classes: c.txt}"


@pytest.mark.parametrize(
    "assignments",
    [
        [f"victim.attack={{kind: patch, image: {LONG}.png}}"],
        [f"victim.attack={{kind: detectclip_wanet, grid: {LONG}.pt}}"],
        *([CSV, f"victim.data.{field}={LONG}"] for field in ("pairs", "pretrain", "labels", "test_labels", "classes")),
        *([CSV, f"victim.data.{field}={LONG}"] for field in ("templates", "synsets", "images")),
        [SHARDS % LONG, "victim.model.random_weights=true"],
        [f"victim.model.name=local-dir:{LONG}"],
        [f"victim.model.checkpoint={LONG}.pt"],
        [f"victim.implant.checkpoint={LONG}.pt"],
        [f"victim.poison={{kind: given, manifest: {LONG}}}"],
        [f"plugins=[./{LONG}.py]"],
        [f"store={LONG}"],
    ],
    ids=lambda assignments: assignments[-1].replace(LONG, "…"),
)
def test_a_path_that_no_file_can_have_is_told(assignments: list[str]) -> None:
    try:
        notes = plan_study(load_study("smoke", assignments)).notes
    except UserError as error:
        notes = tuple(map(str, error.problems))
    assert any("aaaa" in note or "cannot be read here" in note for note in notes)
