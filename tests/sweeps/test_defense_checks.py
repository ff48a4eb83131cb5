"""What a defense needs and a victim does not have is told before anything is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sweeps.study.checks import check_study
from sweeps.study.config import StudyConfig
from sweeps.study.loading import load_study
from ubt.common.errors import UserError
from ubt.data.csv import CsvFiles
from ubt.data.scenes import Scenes
from ubt.data.webdataset import WebDataset
from ubt.trials.config import TrialConfig

FILES = {"labels": "labels.csv", "classes": "classes.txt"}
WITHOUT = {"kind": "csv", "pairs": "pairs.csv", **FILES}
CLEAN = ["finetune", "cleanclip", "par"]


def trial(kind: str, data: dict[str, Any], **implant: Any) -> TrialConfig:
    return TrialConfig.model_validate({"victim": {"data": data, "implant": implant}, "defense": {"kind": kind}})


def test_a_data_source_tells_whether_it_has_clean_pairs_without_reading_any() -> None:
    assert Scenes().has_pretrain
    assert not CsvFiles.model_validate(WITHOUT).has_pretrain
    assert CsvFiles.model_validate({**WITHOUT, "pretrain": "clean.csv"}).has_pretrain
    assert not WebDataset.model_validate({"pairs": "a.tar", **FILES}).has_pretrain


@pytest.mark.parametrize("kind", CLEAN)
def test_a_defense_that_needs_clean_pairs_is_refused_where_there_are_none(kind: str) -> None:
    with pytest.raises(UserError, match=r"defense\.kind: needs clean pairs, and the data has none"):
        trial(kind, WITHOUT).check_defense()
    trial(kind, {**WITHOUT, "pretrain": "clean.csv"}).check_defense()
    trial(kind, {"kind": "scenes"}).check_defense()


@pytest.mark.parametrize("kind", ["none", "ubt", "abl", "oracle"])
def test_other_defenses_do_without(kind: str) -> None:
    trial(kind, WITHOUT).check_defense()


def test_the_oracle_is_refused_where_nobody_knows_the_poison(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs to know which pairs are poisoned"):
        trial("oracle", {"kind": "scenes"}, checkpoint=str(tmp_path / "given.pt")).check_defense()
    trial("abl", {"kind": "scenes"}, checkpoint=str(tmp_path / "given.pt")).check_defense()


def test_a_study_is_refused_with_it() -> None:
    given = {"name": "toy", "victim": {"data": WITHOUT}, "defense": {"kind": "cleanclip"}}
    with pytest.raises(UserError) as caught:
        check_study(StudyConfig.model_validate(given), "toy.yaml")
    told = [str(problem) for problem in caught.value.problems]
    assert [text for text in told if "toy.yaml: defense.kind: needs clean pairs" in text and "abl" in text]


def test_settings_of_a_defense_of_which_nothing_is_seen_cannot_be_chosen_without_the_trigger() -> None:
    searched = ["search={design: grid, space: {defense.finetune_epochs: [1, 2]}}", "objectives.rule=trigger_free"]
    with pytest.raises(UserError) as mistake:
        load_study("smoke", ["defense={kind: finetune}", *searched])
    assert "defense.kind: selects no pairs" in str(mistake.value)
    load_study("smoke", ["objectives.rule=trigger_free"])
    with pytest.raises(UserError) as mistake:
        load_study("table", ["objectives.rule=trigger_free"])
    told = str(mistake.value)
    for name in ("finetune", "par", "cleanclip", "interpolate"):
        assert f"search.defenses.{name}.defense.kind: selects no pairs" in told
    assert "search.defenses.ubt" not in told
