"""Poisoned pairs that come back in: `ubt poison` → a study of its files → the same models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sweeps.cli.poison import write_poisoned, write_study
from sweeps.study.config import StudyConfig
from sweeps.study.loading import load_study
from ubt.artifacts.codec import MODEL, decode
from ubt.artifacts.store import ArtifactStore
from ubt.config import set_path
from ubt.data.base import DataSet, Labelled, Pairs
from ubt.data.vocabulary import read_classes, read_templates
from ubt.engine.runner import run_trial
from ubt.testing import TINY
from ubt.trials.record import TrialRecord

ATTACKS = {
    "badnets": {"kind": "badnets", "poison_rate": 0.1},
    "trojvqa": {"kind": "trojvqa", "poison_rate": 0.1, "decoy_ratio": 1},
    "badclip": {"kind": "badclip", "poison_rate": 0.1, "patch_steps": 2},
    "patch": {"kind": "patch", "poison_rate": 0.1},
}


def study(store: Path, changes: dict[str, Any] | None = None, **fields: Any) -> StudyConfig:
    tree: Any = {"name": "tiny", **TINY, "store": str(store), **fields}
    for path, value in (changes or {}).items():
        tree = set_path(tree, path, value)
    return StudyConfig.model_validate(tree)


def weights(record: TrialRecord, store: Path, stage: str) -> dict[str, torch.Tensor]:
    key = next(one.key for one in record.stages if one.stage == stage)
    opened = ArtifactStore(store)
    manifest = opened.manifest(stage, key)
    assert manifest is not None
    return decode(opened, manifest, MODEL)


def measured(record: TrialRecord) -> Any:
    stages = [(one.stage, one.diagnostics, [epoch.val for epoch in one.epochs]) for one in record.stages]
    return stages, record.poisoned_val, record.poisoned_test, record.val, record.test


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_study_of_the_pairs_that_were_written_comes_to_the_same_models(
    tiny_run: Any, tmp_path: Path, attack: str
) -> None:
    store, out = tiny_run.copy(tmp_path), tmp_path / "out"
    settings = dict(ATTACKS[attack])
    if attack == "patch":
        settings["image"] = str(tmp_path / "mine.png")
        Image.new("RGB", (5, 5), (250, 0, 120)).save(settings["image"])
    made = study(store, {"victim.attack": settings}, seeds=[0, 1])
    write_poisoned(made, out, complete=True)
    records = [run_trial(made.trial({}), store, 0)]
    other = tmp_path / "elsewhere"
    out.rename(other)  # nothing in it says where it lies
    (tmp_path / "mine.png").unlink(missing_ok=True)
    given = load_study(str(other / "study.yaml"), [f"store={tmp_path / 'other store'}"])
    assert given.seeds == (0,)
    records.append(run_trial(given.trial({}), given.store or "", 0))
    assert [record.state for record in records] == ["DONE", "DONE"], records[1].reason
    assert measured(records[0]) == measured(records[1])
    assert not {one.key for one in records[0].stages} & {one.key for one in records[1].stages}, "found, not computed"
    for stage in ("pretrain", "implant", "unlearn"):
        first, second = (
            weights(record, Path(one.store or ""), stage) for record, one in zip(records, (made, given), strict=True)
        )
        assert first.keys() == second.keys()
        assert first, "no weights to compare"
        assert all(torch.equal(first[name], second[name]) for name in first), stage


def test_a_search_over_what_is_settled_is_left_out(tmp_path: Path) -> None:
    space = {"victim.attack.poison_rate": [0.1, 0.2], "defense.overfit_epochs": [1, 2]}
    searched = study(tmp_path / "store", search={"design": "grid", "space": space})
    told = write_poisoned(searched, tmp_path / "out", complete=True)
    assert "without the search over victim.attack.poison_rate, which is settled now" in told
    given = load_study(str(tmp_path / "out" / "study.yaml"))
    assert given.search == StudyConfig(name="x").search
    assert given.name == "tiny-given"


def test_words_for_what_comes_with_a_package_stay_words(tmp_path: Path) -> None:
    """Two of ImageNet's class names are there twice, so no file of classes could say them."""
    names = read_classes("imagenet", [])
    twice = [number for number, name in enumerate(names) if names.count(name) > 1]
    images = np.zeros((4, 8, 8, 3), dtype=np.uint8)
    labelled = Labelled(images[:3], np.array([0, twice[0], twice[-1]]))
    data = DataSet(Pairs(images, list("abcd")), labelled, labelled, names, ["a {}"])
    files = {"kind": "csv", "pairs": tmp_path / "p.csv", "labels": tmp_path / "l.csv", "classes": "imagenet"}
    out = tmp_path / "out"
    out.mkdir()
    write_study(study(tmp_path / "store", {"victim.data": files}), data, out)
    (out / "pairs.csv").write_text("image,caption\nval/000000.png,a\n")
    (out / "manifest.json").write_text("[0]")
    given = load_study(str(out / "study.yaml")).victim.data
    assert given.as_json()["classes"] == "imagenet"
    assert not (out / "classes.txt").exists()
    loaded = given.load(8, tmp_path / "cache")
    assert loaded.test.labels.tolist() == labelled.labels.tolist()
    assert list(loaded.templates) == list(read_templates("openai", []))
