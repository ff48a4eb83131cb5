"""Where the poison comes from, as configured: what follows from what, and what does not go together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from ubt.common.errors import UserError
from ubt.engine.graph import build_pipeline
from ubt.testing import tiny_trial
from ubt.trials.config import TrialConfig
from ubt.trials.poison import GivenPoison, MadePoison


def manifest(folder: Path, attack: dict[str, Any] | None = None, **fields: Any) -> str:
    """Return the path of a list that says pair 3 is poisoned."""
    pair = {"index": 3, "image": "images/3.png", "caption": "c", "original_caption": "o"}
    described = {"study": "s", "seed": 0, "attack": attack or {"kind": "badnets", "poison_rate": 0.5}, "pairs": 200}
    path = folder / "manifest.json"
    path.write_text(json.dumps({**described, "image_size_px": 32, "poisoned": [pair], "decoys": [], **fields}))
    return str(path)


def given(path: str | None = None, **changes: Any) -> TrialConfig:
    return tiny_trial({"victim.poison": {"kind": "given", "manifest": path}, **changes})


def key(trial: TrialConfig, stage: str = "poison") -> str:
    return next(node.key for node in build_pipeline(trial, 0) if node.spec.name == stage)


def test_what_a_study_leaves_out_follows_from_the_rest() -> None:
    checkpoint = {"victim.implant.checkpoint": "given.pt"}
    assert tiny_trial().victim.poisoning == MadePoison()
    assert tiny_trial(checkpoint).victim.poisoning == GivenPoison()
    assert tiny_trial({"victim.attack": None}).victim.poisoning == GivenPoison()
    assert tiny_trial({**checkpoint, "victim.poison": {"kind": "made"}}).victim.poisoning == MadePoison()


def test_what_is_left_out_is_not_written_either() -> None:
    """So a run that began before there was `poison` finds its records when it goes on."""
    assert "poison" not in tiny_trial().victim.as_json()
    assert tiny_trial({"victim.poison": {"kind": "made"}}).victim.as_json()["poison"] == {"kind": "made"}


def test_saying_what_follows_anyway_changes_no_key() -> None:
    assert key(tiny_trial()) == key(tiny_trial({"victim.poison": {"kind": "made"}}))


def test_a_list_is_part_of_the_key_by_its_content(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    keys = [key(given(manifest(first))), key(given(manifest(second))), key(given(manifest(second, pairs=201)))]
    assert keys[0] == keys[1] != keys[2]
    patterns = [key(tiny_trial({"victim.poison": {"kind": "given", "image_pattern": one}})) for one in ("a*", "b*")]
    assert len({*keys, *patterns, key(given()), key(tiny_trial())}) == 6


def test_poison_cannot_be_made_without_an_attack() -> None:
    trial = tiny_trial({"victim.attack": None, "victim.poison": {"kind": "made"}})
    with pytest.raises(UserError, match=r"(?s)victim.poison.kind: there is no attack to make poison with.*kind: given"):
        trial.check_poison()


def test_the_attack_is_the_one_that_the_list_names(tmp_path: Path) -> None:
    given(manifest(tmp_path)).check_poison()  # how much is poisoned says nothing of the trigger
    given(manifest(tmp_path), **{"victim.attack": None}).check_poison()
    other = manifest(tmp_path, {"kind": "sig"})
    wanted = r"(?s)victim.attack.kind: is not what the pairs are poisoned with.*say `attack: {.kind.: .sig.}`"
    with pytest.raises(UserError, match=wanted):
        given(other).check_poison()
    with pytest.raises(UserError, match="is not what the pairs are poisoned with"):
        given(manifest(tmp_path, {"kind": "of another package"})).check_poison()


def test_a_trigger_that_was_learnt_is_not_learnt_anew() -> None:
    """Another patch than the one that the pairs are poisoned with would measure nothing."""
    learns = {"victim.attack": {"kind": "badclip"}}
    for changes in ({"victim.poison": {"kind": "given"}}, {"victim.implant.checkpoint": "given.pt"}):
        with pytest.raises(UserError, match="learns its trigger, and the one that these pairs are poisoned with"):
            tiny_trial({**learns, **changes}).check_poison()
    tiny_trial({**learns, "victim.implant.checkpoint": "given.pt", "victim.poison": {"kind": "made"}}).check_poison()


def test_a_list_that_is_missing_is_told(tmp_path: Path) -> None:
    with pytest.raises(
        UserError,
        match=r"(?s)victim.poison.manifest: there is no such file.*none.json.*give the manifest",
    ):
        given(str(tmp_path / "none.json")).check_poison()


def test_what_is_poisoned_is_said_once(tmp_path: Path) -> None:
    said = {"kind": "given", "manifest": manifest(tmp_path), "image_pattern": "*x*"}
    with pytest.raises(UserError, match="says a second time which pairs are poisoned"):
        tiny_trial({"victim.poison": said}).check_poison()


def test_another_kind_of_poison_is_refused() -> None:
    for said in ({"kind": "bought"}, "bought"):
        with pytest.raises(ValidationError, match="made"):
            tiny_trial({"victim.poison": said})


def test_a_bare_name_stands_for_the_kind() -> None:
    assert tiny_trial({"victim.poison": "given"}).victim.poison == GivenPoison()


def test_the_oracle_needs_the_list(tmp_path: Path) -> None:
    oracle = {"defense": {"kind": "oracle"}}
    given(manifest(tmp_path), **oracle).check_defense()
    with pytest.raises(UserError, match=r"(?s)needs to know which pairs are poisoned.*victim.poison.manifest"):
        given(**oracle).check_defense()


def test_without_an_attack_there_is_no_target_to_check() -> None:
    tiny_trial({"victim.attack": None}).check_target()
