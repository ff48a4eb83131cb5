"""YAML and JSON from outside: what is read, and that all else is one message, at once."""

import json
import os
import re
import string
from pathlib import Path

import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st

from ubt.common.errors import UserError
from ubt.config.documents import parse_assignment, parse_yaml, read_json, read_text, read_yaml
from ubt.config.dotted_paths import DEEPEST
from ubt.config.yaml_text import MOST_VALUES

TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=8)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63) + 1, 2**63 - 1)
    | st.floats(allow_nan=False)
    | TEXTS
    | st.sampled_from(["yes", "on", "1e-5", "2024-01-01", "0x10", "010", "null", "<<", "=", "1:30", "~"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=10,
)


def told(text: str) -> str:
    with pytest.raises(UserError) as caught:
        parse_yaml(text, "study.yaml")
    (problem,) = caught.value.problems
    assert problem.where == "study.yaml"
    assert "Traceback" not in str(problem)
    return problem.message


@given(VALUES)
def test_what_json_writes_is_read_as_it_was(value):
    assert parse_yaml(json.dumps(value, ensure_ascii=False), "x") == value


@given(VALUES)
def test_what_yaml_1_1_writes_is_read_as_it_was(value):
    """But for text such as `1e5`, which only 1.2 takes for a number."""
    assume(not re.search(r"[0-9][eE][-+0-9]", json.dumps(value)) or isinstance(value, float))
    assert parse_yaml(yaml.safe_dump(value, allow_unicode=True), "x") == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5),
        ("-1.5E+3", -1500.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("+3", 3),
        ("yes", "yes"),
        ("on", "on"),
        ("no", "no"),
        ("True", True),
        ("2024-01-01", "2024-01-01"),
        ("0x10", "0x10"),
        ("1_000", "1_000"),
        ("010", "010"),
        ("1:30", "1:30"),
        ("'1'", "1"),
        ("!!str 1", "1"),
        ("!!float 1", 1),
        ("! 1", "1"),
        ("", None),
        ("# nothing", None),
        ("\ufeffa: 1", {"a": 1}),
        ("1: a\nyes: b\n2024-01-01: c\n~: d", {"1": "a", "yes": "b", "2024-01-01": "c", "~": "d"}),
        ("a: &x [1]\nb: *x", {"a": [1], "b": [1]}),
        ("a: &x {k: 1, m: 1}\nb: &y {m: 2, n: 2}\nc: {<<: [*x, *y], k: 3}", None),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text, value):
    found = parse_yaml(text, "x")
    if "<<" in text:
        assert found["c"] == {"k": 3, "m": 1, "n": 2}
    else:
        assert found == value
        assert type(found) is type(value)


BOMB = "a0: &a0 [1, 1]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &x [*x]", r"line 1, column 8: `\*x` stands within `&x`, which would contain itself"),
        ("a: &x {b: {c: *x}}", "would contain itself"),
        ("a: *x", "there is no `&x` before"),
        (BOMB, "there are more than 200,000 values by here"),
        ("[" * 3000, "nested more than 64 levels deep"),
        ("{a: " * 3000, "nested more than 64 levels deep"),
        ("\n".join(" " * n + "a:" for n in range(3000)), "nested more than 64 levels deep"),
        ("- " * 3000, "nested more than 64 levels deep"),
        ("[" + "0," * (MOST_VALUES + 1) + "]", "there are more than"),
        ("a: " + "9" * 5000, "line 1, column 4: this number is too large"),
        ("a: " + str(2**63), "this number is too large"),
        ("a: 1e999", "this number is too large"),
        ("a: \0", "holds a NUL character"),
        ('a: "\\0"', "line 1, column 4: holds a NUL character"),
        ('a: "\\ud800"', "no Unicode text|invalid Unicode"),
        ("a: \ud800", "no Unicode text"),
        ("[1, 2]: a", "a key is a name, no list"),
        ("? {a: 1}\n: 2", "a key is a name, no list"),
        ("b: &k [1]\n*k : 2", "a key is a name"),
        ("a: !!python/object/apply:os.system [x]", "the tag `!!python/object/apply:os.system` is not allowed"),
        ("a: !!python/name:os.system", "is not allowed"),
        ("a: !!binary aGk=", "the tag `!!binary` is not allowed"),
        ("a: !!set {b}", "the tag `!!set` is not allowed"),
        ("a: !!timestamp 2024-01-01", "is not allowed"),
        ("a: !mine b", "the tag `!mine` is not allowed"),
        ("a: !!int b", "`b` is no `!!int`"),
        ("a: !!bool yes", "`yes` is no `!!bool`"),
        ("a: !!int true", "`true` is no `!!int`"),
        ("a: {<<: 1}", "`<<` merges a mapping"),
        ("a: {<<: [1]}", "`<<` merges a mapping"),
        ("a: 1\n---\nb: 2", "line 2, column 1: a second document begins here"),
        ("a: 1\na: 2", "`a` is given twice: at line 1, column 1, and again at line 2, column 1"),
        ("a:\n\tb: 1", "is not valid YAML"),
        ("a: [1", "is not valid YAML"),
        ("a: @b", "is not valid YAML"),
        ("%YAML 9\n", "is not valid YAML"),
        ("a: \x07", "is not valid YAML"),
    ],
)
def test_what_is_refused_is_told_with_its_place(text, message):
    with pytest.raises(UserError, match=message):
        parse_yaml(text, "study.yaml")
    told(text)


def test_a_tab_is_told_how_to_be_mended():
    with pytest.raises(UserError, match="indent with spaces"):
        parse_yaml("a:\n\tb: 1", "x")


@given(st.text(st.sampled_from("[]{}:,-&*!|>'\"%@`#?~<=\n\t ab1.e\0\ud800" + string.printable), max_size=60))
def test_any_text_is_values_or_one_message(text):
    try:
        parse_yaml(text, "x")
    except UserError as error:
        assert len(error.problems) == 1


class TestFiles:
    def test_what_is_no_file_with_text_is_told(self, tmp_path):
        os.mkfifo(tmp_path / "pipe")
        (tmp_path / "large").write_bytes(b"#" * 2000)
        (tmp_path / "latin").write_bytes("name: ä".encode("latin-1"))
        (tmp_path / "loop").symlink_to(tmp_path / "loop")
        for path in (tmp_path, tmp_path / "pipe", Path("/dev/zero"), tmp_path / "none", tmp_path / "latin"):
            with pytest.raises(UserError, match="cannot be read"):
                read_yaml(path)
        for path in (tmp_path / ("x" * 300), tmp_path / ("x/" * 3000), Path("a\0b"), tmp_path / "loop"):
            with pytest.raises(UserError, match="cannot be read"):
                read_json(path)
        with pytest.raises(UserError, match="larger than 0 MiB"):
            read_text(tmp_path / "large", most_bytes=1000)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("", "cannot be read"),
            ("[1]", "must hold a JSON object"),
            ('{"a": ' * 500 + "1" + "}" * 500, "nested more than 64"),
            ("[" * 200_000, "nested more than 64"),
            ('{"a": ' + "9" * 5000 + "}", "too large"),
            ('{"a": "\\u0000"}', "NUL"),
            ('{"\\ud800": 1}', "no Unicode text"),
        ],
    )
    def test_json_is_read_within_limits(self, tmp_path, content, message):
        path = tmp_path / "study.json"
        path.write_text(content)
        with pytest.raises(UserError, match=message) as caught:
            read_json(path)
        assert str(path) in str(caught.value)

    def test_json_as_deep_as_yaml_is_read(self, tmp_path):
        path = tmp_path / "study.json"
        path.write_text('{"a": ' * DEEPEST + "1" + "}" * DEEPEST)
        assert read_json(path) == read_yaml(path)


@pytest.mark.parametrize(
    "text", ["a=\0", "a\ud800=1", "a=\ud800", "a=&x [*x]", "a=" + "[" * 3000, "=", "a=" + "9" * 5000]
)
def test_what_is_set_is_read_within_the_same_limits(text):
    with pytest.raises(UserError, match="--set"):
        parse_assignment(text)
