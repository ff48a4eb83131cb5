from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from analysis.formatting import (
    attack_name,
    changes_text,
    count,
    defense_name,
    listed,
    movement,
    percent,
    points,
    setting_text,
    short_names,
)
from ubt.attacks import ATTACKS


def test_rates_have_one_decimal_and_differences_are_points():
    assert percent(0.0364) == "3.6%"
    assert [points(d) for d in (0.02, 0.01, 0.005, 0.0)] == ["2 points", "1 point", "0.5 points", "0 points"]


def test_a_movement_agrees_with_the_numbers_shown():
    assert movement(0.885, 0.036) == "falls from 88.5% to 3.6%"
    assert movement(0.1, 0.2) == "rises from 10.0% to 20.0%"
    assert movement(0.82404, 0.82396) == "stays at 82.4%"


def test_counts_and_lists_read_as_english():
    assert (count(1, "trial"), count(1200, "trial")) == ("1 trial", "1,200 trials")
    assert (listed(["a"]), listed(["a", "b"]), listed(["a", "b", "c"])) == ("a", "a and b", "a, b and c")


def test_settings_read_as_people_write_them():
    values = [0.03, 1e-5, 64.0, True, None, "token", [1, 2], {"kind": "sig"}]
    assert [setting_text(value) for value in values] == [
        "0.03",
        "1e-5",
        "64",
        "yes",
        "–",
        "token",
        "1, 2",
        "sig",
    ]


def test_parts_read_by_their_kind_with_their_settings():
    parts = [{"kind": "knn", "neighbours": 16}, {"kind": "x", "rate": 2e-4, "inner": {"kind": "y"}}, {"a": 1, "b": 2.0}]
    assert [setting_text(part) for part in parts] == [
        "knn (neighbours 16)",
        "x (rate 2e-4, inner y)",
        "a 1, b 2",
    ]


def test_names_are_as_short_as_they_can_be_told_apart():
    assert short_names(["defense.ratio", "victim.implant.epochs", "victim.pretrain.epochs", "epochs"]) == {
        "defense.ratio": "ratio",
        "victim.implant.epochs": "implant.epochs",
        "victim.pretrain.epochs": "pretrain.epochs",
        "epochs": "epochs",
    }


PATH = st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map(".".join)


@given(st.sets(PATH, max_size=8))
def test_short_names_are_endings_and_differ(paths):
    names = short_names(paths)
    assert all(f".{path}".endswith(f".{name}") for path, name in names.items())
    assert len(set(names.values())) == len(names)


def test_the_base_is_called_base():
    assert changes_text({}, {}) == ("base",)
    assert changes_text({"defense.ratio": 0.1}, {"defense.ratio": "ratio"}) == ("ratio\u00a0=\u00a00.1",)


def test_attacks_and_defenses_are_called_by_their_labels():
    assert [attack_name(kind) for kind in ("badnets", "trojvqa", "few_pairs")] == ["BadNets", "TrojVQA", "few pairs"]
    assert [defense_name(kind) for kind in ("none", "abl", "my_own")] == ["no defense", "ABL", "my own"]


def test_a_plug_in_that_cannot_be_imported_is_called_by_its_kind(monkeypatch):
    def load():
        raise ImportError("lost")

    point = SimpleNamespace(name="lost_one", value="lost:Lost", dist=None, load=load)
    monkeypatch.setattr(ATTACKS, "_points", lambda: {"lost_one": (point,)})
    assert attack_name("lost_one") == "lost one"
