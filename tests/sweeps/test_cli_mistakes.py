"""Each mistake a user can make: told once, on one screen, with its place; status 2; nothing is left behind."""

from __future__ import annotations

import csv
import os
import pickle
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from sweeps.cli.app import main
from sweeps.cli.mistakes import mistakes_text
from sweeps.run.folder import RunFolder
from sweeps.study.loading import load_study
from ubt.common.errors import Problem, UserError


@dataclass(frozen=True)
class Told:
    status: int
    out: str
    err: str


Ubt = Callable[..., Told]


@pytest.fixture
def ubt(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Ubt:
    """Run the command line in this process, in an empty folder."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("UBT_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("UBT_CACHE", str(tmp_path / "cache"))

    def run(*words: object) -> Told:
        monkeypatch.setattr("sys.argv", ["ubt", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return Told(int(ended.value.code or 0), captured.out, captured.err)

    return run


def assert_told(told: Told, *parts: str) -> None:
    assert told.status == 2, told
    assert told.out == ""
    assert "Traceback" not in told.err
    assert len(told.err.splitlines()) <= 24
    for part in parts:
        assert part in told.err


@pytest.fixture
def nothing_left(tmp_path: Path) -> Iterable[None]:
    """No run folder, no artifact, nothing in the current folder."""
    yield
    assert list((tmp_path / "here").iterdir()) == []
    artifacts = tmp_path / "store" / "artifacts"
    assert [path for path in artifacts.rglob("*") if path.is_file()] == []


FIELDS = [
    pytest.param(["defense.suspicous_ratio=0.1"], ["defense.suspicous_ratio", "unknown field", "suspicious_ratio"]),
    pytest.param(["defense.overfit_epochs=few"], ["defense.overfit_epochs", "valid integer", "'few'"]),
    pytest.param(["defense.suspicious_ratio=1.5"], ["defense.suspicious_ratio", "less than or equal to 1", "1.5"]),
    pytest.param(["victim.attack.kind=badnet"], ["victim.attack.kind", "badnets", "sig"]),
    pytest.param(["victim.attack.target=bananna"], ["victim.attack.target", "no class of the data", "banana"]),
    pytest.param(["victim.model.name=RN51"], ["victim.model.name", "no such model", "nearest: RN50"]),
    pytest.param(["victim.model={name: RN50, pretrained: openay}"], ["victim.model.pretrained", "openai"]),
    pytest.param(["victim.model.name=local-dir:nowhere"], ["victim.model.name", "no open_clip_config.json"]),
    pytest.param(
        ["victim.model={name: RN50-quickgelu, random_weights: true, activation: gelu}"],
        ["victim.model.activation", "contradicts", "the name says QuickGELU"],
    ),
    pytest.param(["search.design=gird"], ["search.design", "grid", "ofat"]),
    pytest.param(["search.space={defense.nonsense: [1]}"], ["search.space.defense.nonsense", "ubt schema"]),
    pytest.param(["nonsense"], ["--set", "PATH=VALUE", "e.g."]),
    pytest.param(
        ["defense.overfit_epochs=few", "victim.model.name=RN51", "objectives.ca_floor=3"],
        ["3 problems", "defense.overfit_epochs", "victim.model.name", "objectives.ca_floor"],
    ),
]


@pytest.mark.usefixtures("nothing_left")
class TestStudy:
    @pytest.mark.parametrize(("assignments", "parts"), FIELDS)
    def test_a_field_that_is_wrong(self, ubt: Ubt, assignments: list[str], parts: list[str]) -> None:
        sets = [word for assignment in assignments for word in ("--set", assignment)]
        assert_told(ubt("sweep", "smoke", "--address", "inline", *sets), *parts)

    @pytest.mark.parametrize("command", ["sweep", "run", "plan"])
    def test_every_command_that_takes_a_study_tells_alike(self, ubt: Ubt, command: str) -> None:
        assert_told(ubt(command, "smoke", "--set", "defense.suspicous_ratio=1"), "1 problem:", "suspicious_ratio")

    @pytest.mark.parametrize("command", ["sweep", "run", "plan"])
    def test_a_study_that_does_not_exist(self, ubt: Ubt, command: str) -> None:
        assert_told(ubt(command, "smoek"), "smoek", "neither a file nor a built-in study", "smoke", "demo")

    def test_a_checkpoint_that_does_not_tell_its_activation(self, ubt: Ubt, tmp_path: Path) -> None:
        (tmp_path / "epoch.pt").write_bytes(b"PK")
        model = f"victim.model={{name: RN50, checkpoint: {tmp_path / 'epoch.pt'}}}"
        assert_told(
            ubt("plan", "smoke", "--set", model), "victim.model.activation", "epoch.pt", "quickgelu", "CleanCLIP"
        )

    def test_a_model_whose_package_is_missing(self, ubt: Ubt, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("ubt.models.checks.find_spec", lambda _: None)
        told = ubt("plan", "smoke", "--set", "victim.model.name=ViT-B-16-SigLIP")
        assert_told(told, "victim.model.name", "`transformers`", "pip install 'ubt-sweeper[transformers]'")

    def test_a_file_that_is_no_yaml(self, ubt: Ubt, tmp_path: Path) -> None:
        (tmp_path / "mine.yaml").write_text("victim: [")
        assert_told(ubt("sweep", tmp_path / "mine.yaml"), "mine.yaml", "not valid YAML")

    def test_an_option_that_does_not_exist(self, ubt: Ubt) -> None:
        assert_told(ubt("sweep", "smoke", "--sed", "1"), "--sed", "--set")

    def test_a_name_that_is_no_folder_name(self, ubt: Ubt) -> None:
        assert_told(ubt("sweep", "smoke", "--name", "../up"), "name")


@dataclass(frozen=True)
class Files:
    """A data set of six pairs and six labelled images, right until a test spoils it."""

    folder: Path

    def write(self) -> Files:
        (self.folder / "images").mkdir(parents=True)
        for number in range(12):
            noise = np.random.default_rng(number).integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(noise).save(self.folder / f"images/{number}.png")
        self.table("pairs", "caption", [[f"images/{number}.png", f"a photo of a cat {number}"] for number in range(6)])
        self.table("labels", "label", [[f"images/{number}.png", number % 2] for number in range(6, 12)])
        (self.folder / "classes.txt").write_text("cat\ndog\n")
        data = {"kind": "csv", "pairs": "pairs.csv", "labels": "labels.csv", "classes": "classes.txt"}
        victim = {"data": data, "attack": {"kind": "badnets", "target": "cat"}, "model": {"random_weights": True}}
        (self.folder / "study.yaml").write_text(yaml.safe_dump({"victim": victim}))
        return self

    def table(self, name: str, column: str, rows: Iterable[Iterable[object]]) -> None:
        with (self.folder / f"{name}.csv").open("w", newline="") as stream:
            csv.writer(stream).writerows([["image", column], *rows])


@pytest.fixture
def photos(tmp_path: Path) -> Files:
    return Files(tmp_path / "data").write()


def lack_a_column(photos: Files) -> None:
    photos.table("pairs", "notes", [["images/0.png", "a cat"]])


def lack_an_image(photos: Files) -> None:
    (photos.folder / "images/2.png").unlink()


def cut_an_image(photos: Files) -> None:
    path = photos.folder / "images/8.png"
    path.write_bytes(path.read_bytes()[:300])


def empty_a_table(photos: Files) -> None:
    (photos.folder / "labels.csv").write_text("")


def count_too_far(photos: Files) -> None:
    photos.table("labels", "label", [["images/6.png", 0], ["images/7.png", 1], ["images/8.png", 2]])


def misname_a_class(photos: Files) -> None:
    photos.table("labels", "label", [["images/6.png", "cat"], ["images/7.png", "dgo"], ["images/8.png", "dog"]])


def lack_the_classes(photos: Files) -> None:
    (photos.folder / "classes.txt").unlink()


def leave_one_pair(photos: Files) -> None:
    photos.table("pairs", "caption", [["images/0.png", "a photo of a cat"]])


def label_all_as_target(photos: Files) -> None:
    photos.table("labels", "label", [[f"images/{number}.png", "cat"] for number in range(6, 12)])


def leave_one_class(photos: Files) -> None:
    (photos.folder / "classes.txt").write_text("cat\n")
    label_all_as_target(photos)


@pytest.mark.usefixtures("nothing_left")
class TestData:
    @pytest.mark.parametrize(
        ("spoil", "assignment", "told"),
        [
            (leave_one_pair, "seeds=[0]", "victim.data: has 1 training pair; a batch contrasts two at least"),
            (label_all_as_target, "seeds=[0]", "victim.data: all 3 test images are of the target `cat`"),
            (leave_one_class, "victim.attack=null", "victim.data: 1 class is too few"),
            (
                Files,
                "victim.attack.poison_count=6",
                "victim.attack.poison_count: 6 pairs are to be poisoned, and there",
            ),
            (Files, "defense.suspicious_ratio=0.05", "defense.suspicious_ratio: is no pair of the 6 that are looked"),
            (Files, "defense.suspicious_ratio=0.9", "which leaves 1 to hold in place"),
            (Files, "defense={kind: abl, isolation_ratio: 0.99}", "defense.isolation_ratio: isolates 6 of 6 pairs"),
            (Files, "victim.attack.kind=badclip", "captions that name it: 6"),
            (Files, "victim.model={}", "victim.model: is to be trained, and the data has no `pretrain` pairs"),
        ],
        ids=lambda value: getattr(value, "__name__", ""),
    )
    def test_too_little_data_is_told_before_anything_is_trained(
        self, ubt: Ubt, photos: Files, spoil: Callable[..., object], assignment: str, told: str
    ) -> None:
        spoil(photos if spoil is not Files else photos.folder)
        enough = ["--set", "defense={kind: ubt, suspicious_ratio: 0.34}", "--set", "victim.attack.poison_rate=0.2"]
        assert_told(ubt("run", photos.folder / "study.yaml", *enough, "--set", assignment), told)

    @pytest.mark.parametrize("command", ["sweep", "run"])
    @pytest.mark.parametrize(
        ("spoil", "parts"),
        [
            (lack_a_column, ["pairs.csv", "has no column `caption`", "found: image, notes"]),
            (lack_an_image, ["pairs.csv: row 4", "no such image", "images/2.png"]),
            (cut_an_image, ["labels.csv: row 4", "images/8.png"]),
            (empty_a_table, ["labels.csv", "is empty"]),
            (count_too_far, ["labels.csv: row 4", "class index out of range", "0 to 1", "(given: 2)"]),
            (misname_a_class, ["labels.csv: row 3", "unknown class", "'dgo'", "did you mean `dog`?"]),
            (lack_the_classes, ["classes.txt", "cannot be read"]),
        ],
        ids=lambda value: getattr(value, "__name__", ""),
    )
    def test_files_that_are_not_as_they_should_be(
        self, ubt: Ubt, photos: Files, spoil: Callable[[Files], None], parts: list[str], command: str
    ) -> None:
        spoil(photos)
        inline = ["--address", "inline"] if command == "sweep" else []
        assert_told(ubt(command, photos.folder / "study.yaml", *inline), *parts)

    def test_of_many_mistakes_the_first_are_shown_and_all_are_listed_in_a_file(self, ubt: Ubt, photos: Files) -> None:
        photos.table("pairs", "caption", [[f"images/gone-{number}.png", "x"] for number in range(60)])
        told = ubt("run", photos.folder / "study.yaml")
        assert_told(told, "60 problems:", "row 21: no such image", "and 40 more", "All 60 are listed in ")
        assert "row 22" not in told.err
        listed = Path(told.err.split("are listed in ")[1].strip())
        assert listed.is_relative_to(os.environ["UBT_CACHE"])
        assert sum("no such image" in line for line in listed.read_text().splitlines()) == 60
        assert ubt("run", photos.folder / "study.yaml").err == told.err, "the same list is no second file"

    def test_data_of_one_trial_of_many(self, ubt: Ubt, photos: Files) -> None:
        photos.table("others", "label", [["images/6.png", 0], ["images/none.png", 1]])
        search = "search={design: ofat, space: {victim.data.labels: [" + str(photos.folder / "others.csv") + "]}}"
        told = ubt("sweep", photos.folder / "study.yaml", "--address", "inline", "--set", search)
        assert_told(told, "others.csv: row 3", "no such image")

    def test_a_plan_goes_without_the_data_and_says_so(self, ubt: Ubt, photos: Files) -> None:
        lack_an_image(photos)
        told = ubt("plan", photos.folder / "study.yaml")
        assert told.status == 0
        assert "Note: the data cannot be read here" in told.out


def truncated_safetensors(path: Path) -> Path:
    from safetensors.torch import save
    from torch import ones

    path.write_bytes(save({"weight": ones(100)})[:200])
    return path


def pickled_object(path: Path) -> Path:
    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (path.with_name("it ran"),))

    path.write_bytes(pickle.dumps(Payload()))
    return path


@pytest.mark.usefixtures("nothing_left")
class TestWeights:
    @pytest.mark.parametrize("field", ["victim.model.checkpoint", "victim.implant.checkpoint"])
    @pytest.mark.parametrize(
        ("make", "name"), [(truncated_safetensors, "cut.safetensors"), (pickled_object, "object.pt")]
    )
    def test_that_cannot_be_loaded(
        self, ubt: Ubt, tmp_path: Path, field: str, make: Callable[[Path], Path], name: str
    ) -> None:
        path = make(tmp_path / name)
        told = ubt("sweep", "smoke", "--address", "inline", "--set", f"{field}={path}")
        assert_told(told, str(path), "cannot be loaded", "give weights of this model")
        assert not (tmp_path / "it ran").exists()

    def test_of_an_unknown_kind(self, ubt: Ubt, tmp_path: Path) -> None:
        (tmp_path / "weights.h5").touch()
        told = ubt("sweep", "smoke", "--address", "inline", "--set", f"victim.model.checkpoint={tmp_path}/weights.h5")
        assert_told(told, "weights.h5", ".safetensors")

    @pytest.mark.parametrize("field", ["victim.model.checkpoint", "victim.implant.checkpoint"])
    def test_that_are_not_there(self, ubt: Ubt, field: str) -> None:
        assert_told(ubt("plan", "smoke", "--set", f"{field}=nowhere.pt"), field, "no such file", "nowhere.pt")


@pytest.mark.usefixtures("nothing_left")
class TestPlaces:
    """A path below a regular file cannot be written even by root."""

    def test_a_store_that_cannot_be_written(self, ubt: Ubt, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        told = ubt("sweep", "smoke", "--address", "inline", "--set", f"store={tmp_path}/file/store")
        assert_told(told, f"store {tmp_path}/file/store", "cannot be written", "$UBT_STORE")

    @pytest.mark.parametrize("command", ["sweep", "run"])
    def test_a_place_for_runs_that_cannot_be_written(self, ubt: Ubt, tmp_path: Path, command: str) -> None:
        (tmp_path / "file").write_text("")
        told = ubt(command, "smoke", "--out", tmp_path / "file/runs")
        assert_told(told, "--out", f"{tmp_path}/file is no folder", "another folder")

    @pytest.mark.parametrize("command", ["report", "ui", "track"])
    @pytest.mark.parametrize("what", ["nothing", "a folder", "a file"])
    def test_a_folder_that_is_no_run(self, ubt: Ubt, tmp_path: Path, command: str, what: str) -> None:
        place = tmp_path / "place"
        if what == "a folder":
            place.mkdir()
        elif what == "a file":
            place.write_text("")
        assert_told(ubt(command, place), str(place), "study.json")
        assert not place.is_dir() or not list(place.iterdir())


class TestResume:
    def test_without_a_run(self, ubt: Ubt, tmp_path: Path) -> None:
        told = ubt("sweep", "smoke", "--resume", "--out", tmp_path / "runs")
        assert_told(told, "--resume", "no run of `smoke`", "leave --resume out")
        assert not (tmp_path / "runs").exists()

    def test_of_another_study(self, ubt: Ubt, tmp_path: Path) -> None:
        run = RunFolder(tmp_path / "runs/smoke")
        run.write_study(load_study("smoke", ["search.lag=4"]))
        before = run.study.read_text()
        words = ["--resume", "--out", tmp_path / "runs", "--set", "seeds=[3]", "--set", "defense.retain_weight=0.125"]
        told = ubt("sweep", "smoke", *words)
        assert_told(told, "--resume smoke: seeds", "[3]", "[0]", "--resume smoke: defense.retain_weight", "0.125")
        assert run.study.read_text() == before
        assert [path.name for path in run.path.iterdir()] == ["study.json"]

    def test_with_a_record_of_a_later_version(self, ubt: Ubt, tmp_path: Path) -> None:
        run = RunFolder(tmp_path / "runs/smoke")
        run.write_study(load_study("smoke", ["search.lag=4"]))
        run.records.mkdir()
        (run.records / "t0000.json").write_text('{"version": 99}')
        told = ubt("sweep", "smoke", "--address", "inline", "--resume", "--out", tmp_path / "runs")
        assert_told(told, "t0000.json", "is no record of version", "99", "remove the file")


def test_the_schema_of_a_study_is_json(ubt: Ubt) -> None:
    import json

    told = ubt("schema")
    assert told.status == 0
    assert "victim" in json.loads(told.out)["properties"]


def test_mistakes_that_cannot_be_listed_in_a_file_are_all_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("UBT_CACHE", str(tmp_path / "file" / "cache"))
    text = mistakes_text(UserError(Problem(f"row {row}", "is wrong") for row in range(30)))
    assert text.count("is wrong") == 30
    assert "could not be listed in a file" in text


def test_without_a_command_the_help_is_shown(ubt: Ubt) -> None:
    told = ubt()
    assert "sweep" in told.out + told.err
