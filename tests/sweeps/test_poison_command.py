"""`ubt poison`: what it writes, read back by the CSV data source and compared with what a trial trains on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sweeps.cli.app import main
from sweeps.cli.poison import write_files, write_poisoned
from sweeps.study.config import StudyConfig
from ubt.artifacts.store import UnusableStore
from ubt.attacks.overlays import Sig
from ubt.common.errors import Problem, UserError
from ubt.config import set_path
from ubt.data.base import Pairs
from ubt.data.csv import CsvFiles
from ubt.data.decode import decode_image
from ubt.data.tables import read_rows
from ubt.engine.poisoning import PoisonManifest
from ubt.testing import TINY
from ubt.trials.poison import PoisonList

LEARNS = {"kind": "badclip", "poison_rate": 0.1, "patch_steps": 2}


def study(store: Path, changes: dict[str, Any] | None = None, **fields: Any) -> StudyConfig:
    tree: Any = {"name": "tiny", **TINY, "store": str(store), **fields}
    for path, value in (changes or {}).items():
        tree = set_path(tree, path, value)
    return StudyConfig.model_validate(tree)


def read_back(out: Path, cache: Path) -> Any:
    """Return the pairs as the CSV data source reads them; it wants labelled images too, and gets two of them."""
    (out.parent / "classes.txt").write_text("banana\nboat\n")
    rows = "\n".join(f"{out.name}/images/{number:06d}.png,{number % 2}" for number in range(4))
    (out.parent / "labels.csv").write_text(f"image,label\n{rows}\n")
    settings = {"labels": out.parent / "labels.csv", "classes": str(out.parent / "classes.txt"), "decode_workers": 1}
    return CsvFiles.model_validate({"pairs": out / "pairs.csv", **settings}).load(32, cache).train


@pytest.fixture
def problem(tmp_path: Path) -> Any:
    def of(changes: dict[str, Any] | None = None, out: Path | None = None) -> str:
        with pytest.raises(UserError) as caught:
            write_poisoned(study(tmp_path / "store", changes), out or tmp_path / "out")
        return str(caught.value)

    return of


@pytest.mark.parametrize(
    "attack",
    [
        {"kind": "badnets", "poison_rate": 0.1},
        {"kind": "wanet", "poison_count": 7},
        {"kind": "cleanclip_badnets", "poison_count": 7},
    ],
    ids=lambda attack: attack["kind"],
)
def test_what_is_written_is_what_a_trial_trains_on(bench: Any, tmp_path: Path, attack: dict[str, Any]) -> None:
    out = tmp_path / "out"
    write_poisoned(study(tmp_path / "store", {"victim.attack": attack}), out)
    pairs = bench.context("implant", {"victim.attack": attack}).pairs
    again = read_back(out, tmp_path / "cache")
    assert list(again.captions) == list(pairs.captions)
    np.testing.assert_array_equal(again.images, pairs.take(np.arange(200)))


def test_the_manifest_says_which_pairs_are_poisoned_and_with_what(bench: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    told = write_poisoned(study(tmp_path / "store", seeds=[3, 4]), out)
    found = PoisonList.model_validate_json((out / "manifest.json").read_text())
    context = bench.context("implant", seed=3)
    assert (found.study, found.seed, found.pairs, found.image_size_px) == ("tiny", 3, 200, 32)
    assert found.attack == context.manifest.attack.as_json()
    assert [pair.index for pair in found.poisoned] == context.manifest.indices.tolist()
    rows = read_rows(out / "pairs.csv", "caption", [])
    clean = context.data.train
    for pair in found.poisoned:
        assert rows[pair.index].text == pair.caption
        assert rows[pair.index].image == out / pair.image
        assert pair.original_caption == clean.captions[pair.index]
        assert not np.array_equal(decode_image(out / pair.image, 32), clean.images[pair.index])
    assert "200 pairs" in told
    assert "20 are poisoned" in told


def test_decoys_are_told_apart_from_poison(bench: Any, tmp_path: Path) -> None:
    out, changes = tmp_path / "out", {"victim.attack": {"kind": "trojvqa", "poison_rate": 0.1, "decoy_ratio": 1}}
    write_poisoned(study(tmp_path / "store", changes), out)
    found = PoisonList.model_validate_json((out / "manifest.json").read_text())
    context = bench.context("implant", changes)
    assert len(found.decoys) == 20
    assert list(found.decoys) == context.manifest.decoys.tolist()
    assert list(read_back(out, tmp_path / "cache").captions) == list(context.pairs.captions)


def test_no_model_is_made_for_an_attack_that_needs_none(tmp_path: Path) -> None:
    write_poisoned(study(tmp_path / "store"), tmp_path / "out")
    assert not list((tmp_path / "store").rglob("meta.json"))


def test_an_attack_that_learns_uses_the_store_and_is_written_as_it_is_trained_on(
    bench: Any, tiny_run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, out, changes = tiny_run.copy(tmp_path), tmp_path / "out", {"victim.attack": LEARNS}
    write_poisoned(study(store, changes), out)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[:2] for line in lines] == [["pretrain", "reused"], ["poison", "done"]]
    pairs = bench.context("implant", changes).pairs
    np.testing.assert_array_equal(read_back(out, tmp_path / "cache").images, pairs.take(np.arange(200)))


def test_captions_with_commas_quotes_and_line_breaks_come_back(tmp_path: Path) -> None:

    captions = ['say "cheese", please', "two\nlines", "Füße 足", "plain"]
    clean = Pairs(np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8), captions)
    out = tmp_path / "out"
    write_files("s", 0, clean, PoisonManifest(np.array([3]), ["a boat"], Sig()), out)
    assert list(read_back(out, tmp_path / "cache").captions) == [*captions[:3], "a boat"]


def test_a_folder_in_use_is_left_alone(problem: Any, tmp_path: Path) -> None:
    out = tmp_path / "mine"
    out.mkdir()
    (out / "thesis.txt").write_text("all of it")
    assert "--out: is not empty" in problem(out=out)
    assert "--out: is no folder" in problem(out=out / "thesis.txt")
    assert [path.name for path in out.iterdir()] == ["thesis.txt"]
    assert not (tmp_path / "store").exists(), "nothing was computed"


def test_a_folder_that_cannot_be_made_is_told(problem: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "--out: cannot be written" in problem(out=tmp_path / "file" / "below")


def test_an_attack_that_cannot_be_made_is_told(problem: Any, tmp_path: Path) -> None:
    told = problem({"victim.attack": {"kind": "label_consistent", "poison_count": 150}})
    assert "victim.attack.poison_count: 150 pairs are to be poisoned, and this attack can poison" in told
    assert not (tmp_path / "out").exists()


def test_a_victim_that_comes_poisoned_is_not_poisoned_again(problem: Any, tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(b"weights")
    assert "the victim's pairs come poisoned" in problem({"victim.implant.checkpoint": str(tmp_path / "model.pt")})


def test_without_a_known_attack_there_is_nothing_to_poison_with(problem: Any) -> None:
    assert "victim.attack: is null" in problem({"victim.attack": None})


def test_a_run_that_was_cut_off_has_no_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sweeps.cli.poison.write_whole", full)
    with pytest.raises(UserError, match=r"--out: .*No space left"):
        write_poisoned(study(tmp_path / "store"), tmp_path / "out")
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_a_store_that_fails_is_not_told_of_as_the_place_for_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> None:
        raise UnusableStore(Problem("store s3://lab", "cannot be read: no answer"))

    monkeypatch.setattr("sweeps.cli.poison._poison", fails)
    with pytest.raises(UserError, match=r"^store s3://lab: cannot be read: no answer$"):
        write_poisoned(study(tmp_path / "store"), tmp_path / "out")


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.yaml").write_text(json.dumps({**TINY, "store": str(tmp_path / "store")}))
    words = [str(tmp_path / "mine.yaml"), "--out", str(tmp_path / "out"), "--set", "victim.attack.poison_count=5"]
    monkeypatch.setattr("sys.argv", ["ubt", "poison", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    assert "5 are poisoned" in capsys.readouterr().out
    assert len(list((tmp_path / "out" / "images").iterdir())) == 200
