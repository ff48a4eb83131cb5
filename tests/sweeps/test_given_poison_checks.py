"""What is met of given poison before anything is trained: in the study's file, then in the data."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from sweeps.run.preflight import prepare
from sweeps.study.loading import load_study
from ubt.common.errors import UserError
from ubt.engine.given_poison import located
from ubt.trials.poison import GivenPoison

Study = Callable[..., str]


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """Write a study on eight pairs of files, of which two are poisoned, and return its path."""
    (tmp_path / "classes.txt").write_text("banana\nboat\n")
    rng = np.random.default_rng(0)
    for number in range(8):
        Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)).save(tmp_path / f"{number}.png")
    rows = [f"{number}.png,{('banana', 'boat')[number % 2]}" for number in range(8)]
    (tmp_path / "pairs.csv").write_text("image,caption\n" + "\n".join(rows))
    for name, part in (("labels.csv", rows[:3]), ("test.csv", rows[3:])):
        (tmp_path / name).write_text("image,label\n" + "\n".join(part))

    def write(listed: object = None, **victim: Any) -> str:
        if listed is not None:
            (tmp_path / "list.json").write_text(json.dumps(listed))
        data = {"kind": "csv", "pairs": "pairs.csv", "labels": "labels.csv", "classes": "classes.txt"}
        poison = {"kind": "given", **({"manifest": "list.json"} if listed is not None else {})}
        search = victim.pop("search", {"design": "grid"})
        tree = {"victim": {"data": data, "model": {"name": "tiny-rn"}, "poison": poison, **victim}, "search": search}
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"extends": "smoke", **tree}))
        return str(tmp_path / "mine.yaml")

    return write


@pytest.fixture
def problems(tmp_path: Path) -> Callable[[str], str]:
    def of(reference: str) -> str:
        with pytest.raises(UserError) as caught:
            prepare(load_study(reference), str(tmp_path / "store"))
        return str(caught.value)

    return of


def test_a_list_is_found_beside_the_study_and_compared_with_the_data(
    study: Study, problems: Any, tmp_path: Path
) -> None:
    clean = {"pretrained": None, "checkpoint": None, "random_weights": True, "name": "tiny-rn"}
    boat = {"kind": "badnets", "target": "boat"}  # of the few images that are the test split, none is of it
    prepare(load_study(study([1, "5.png"], model=clean, attack=boat)), str(tmp_path / "store"))
    found = problems(study([1, 8, "9.png"], model=clean, attack=boat))
    assert "list.json: entry 1: is no row of the data; its 8 pairs are 0 to 7" in found
    assert "list.json: entry 2: is the image of no pair of the data" in found


def test_a_list_that_is_none_is_met_when_the_file_is_read(study: Study) -> None:
    with pytest.raises(UserError, match="is no list of poisoned pairs"):
        load_study(study({"rows": [1]}))
    with pytest.raises(UserError, match=r"mine.yaml: victim.poison.manifest: there is no such file"):
        load_study(study(poison={"kind": "given", "manifest": "nowhere.json"}))


@pytest.mark.parametrize(
    ("search", "where"),
    [
        (
            {"design": "grid", "space": {"victim.attack.poison_rate": [0.1, 0.2]}},
            "search.space.victim.attack.poison_rate",
        ),
        (
            {
                "design": "comparison",
                "attacks": {"a": {"kind": "badnets"}, "b": {"kind": "sig"}},
                "defenses": {"ubt": {"defense": {"kind": "ubt"}}},
            },
            "search",
        ),
    ],
)
def test_pairs_that_are_poisoned_already_have_one_attack(study: Study, search: dict[str, Any], where: str) -> None:
    with pytest.raises(UserError, match=f"mine.yaml: {where}: several attacks on pairs that are poisoned already"):
        load_study(study([1], search=search))
    one = {**search, "attacks": {"a": {"kind": "badnets"}}} if "attacks" in search else {"design": "grid"}
    load_study(study([1], search=one))


def test_another_attack_than_the_lists_is_met_in_a_comparison_too(study: Study) -> None:
    pair = {"index": 3, "image": "3.png", "caption": "boat", "original_caption": "o"}
    manifest = {"study": "s", "seed": 0, "attack": {"kind": "sig"}, "pairs": 8, "image_size_px": 32}
    search = {
        "design": "comparison",
        "attacks": {"mine": {"kind": "badnets"}},
        "defenses": {"ubt": {"defense": {"kind": "ubt"}}},
    }
    listed = {**manifest, "poisoned": [pair], "decoys": []}
    with pytest.raises(UserError, match=r"search.attacks.mine.kind: is not what the pairs are poisoned with"):
        load_study(study(listed, attack={"kind": "sig"}, search=search))


def test_a_search_learns_nothing_from_an_attack_that_is_not_known(study: Study) -> None:
    space = {"defense.overfit_epochs": [1, 2]}
    optuna = {"design": "optuna", "n_trials": 4, "space": space}
    with pytest.raises(UserError, match=r"mine.yaml: victim.attack: is null, so there is no ASR that the search could"):
        load_study(study(attack=None, search=optuna))
    load_study(study(attack=None, search={"design": "grid", "space": space}))
    load_study(study(attack=None, search=optuna), ["objectives.rule=trigger_free"])


def test_the_table_of_pairs_may_say_itself_which_are_poisoned(study: Study, tmp_path: Path) -> None:
    """As with the tables that others publish: `pairs` and `manifest` are one file."""
    reference = study(poison={"kind": "given", "manifest": "pairs.csv"})
    header, *rows = (tmp_path / "pairs.csv").read_text().splitlines()
    marked = [f"{row},{int(number in (2, 7))}" for number, row in enumerate(rows)]
    (tmp_path / "pairs.csv").write_text("\n".join([f"{header},is_backdoor", *marked]))
    victim = load_study(reference).victim
    assert isinstance(victim.poisoning, GivenPoison)
    found = located(victim.poisoning, victim.data.load(4, tmp_path / "cache").train)
    assert found is not None
    assert found.indices.tolist() == [2, 7]


def test_a_list_is_read_once_however_many_configurations_there_are(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = {"defense.token_threshold": [number / 100 for number in range(1, 60)]}
    for listed, wrong in (([1], ""), ({"rows": [1]}, "is no list")):
        reference, reads = study(listed, search={"design": "grid", "space": space}), []
        monkeypatch.setattr(Path, "read_text", _counted(Path.read_text, reads))
        with pytest.raises(UserError, match=wrong) if wrong else nullcontext():
            load_study(reference)
        monkeypatch.undo()
        assert [path.name for path in reads].count("list.json") == 1


def _counted(read: Callable[..., str], reads: list[Path]) -> Callable[..., str]:
    def read_text(path: Path, *arguments: Any, **named: Any) -> str:
        reads.append(path)
        return read(path, *arguments, **named)

    return read_text


def test_weights_of_another_architecture_are_met_before_anything_runs(study: Study, tmp_path: Path) -> None:
    torch.save({"visual.conv1.weight": torch.zeros(8, 3, 3, 3)}, tmp_path / "other.pt")
    victim = {"model": {"name": "tiny-rn", "random_weights": True}, "implant": {"checkpoint": "other.pt"}}
    with pytest.raises(UserError, match=r"other\.pt"):
        prepare(load_study(study([1], **victim)), str(tmp_path / "store"))


def test_a_test_split_of_its_own(study: Study, tmp_path: Path) -> None:
    data = load_study(study([1])).victim.data
    split = data.model_copy(update={"test_labels": tmp_path / "test.csv"})
    loaded = split.load(4, tmp_path / "cache")
    assert (loaded.val.labels.tolist(), loaded.test.labels.tolist()) == ([0, 1, 0], [1, 0, 1, 0, 1])
    keys = {data.content_key(), split.content_key()}
    (tmp_path / "test.csv").write_text("image,label\n3.png,boat\n4.png,boat\n")
    assert len({*keys, split.content_key()}) == 3, "what is in the test split is part of the key"
    (tmp_path / "test.csv").write_text("image,label\n3.png,bout\n")
    with pytest.raises(UserError, match=r"test\.csv: row 2: unknown class"):
        split.content_key()
