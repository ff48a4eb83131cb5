"""`ubt clean`: what a defender gives, what comes out, and what is said of mistakes."""

from __future__ import annotations

import csv
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from analysis import load_run
from sweeps.cleaning.checkpoint import clean_checkpoint
from sweeps.cleaning.study import Request, settings_of, study_for
from sweeps.cli.app import main
from ubt.common.errors import UserError
from ubt.models.clip import same_state

QUICK = (
    "victim.implant.min_asr=0",
    "gates.clean_accuracy.act=report",
    "defense.overfit_epochs=1",
    "defense.unlearn_epochs=1",
    "defense.unlearn_samples=8",
    "defense.suspicious_ratio=0.1",
    "search={design: grid, space: {defense.unlearn_learning_rate: [1.0e-4, 4.0e-4]}}",
)
ODD = 'a "banana", <b>&amp; boat</b>'


def write_table(path: Path, column: str, texts: list[str], images: Any) -> Path:
    folder = path.parent / path.stem
    folder.mkdir()
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", column])
        for number, (text, image) in enumerate(zip(texts, images, strict=True)):
            Image.fromarray(np.asarray(image)).save(folder / f"{number}.png")
            writer.writerow([f"{path.stem}/{number}.png", text])
    return path


@pytest.fixture(scope="module")
def files(bench, tmp_path_factory) -> Path:
    """A folder with what a defender has of the tiny victim: both models, its pairs, labelled images."""
    folder = tmp_path_factory.mktemp("given")
    for name, stage in (("suspicious", "implant"), ("clean", "pretrain")):
        save_file(dict(bench.artifact(stage).weights), folder / f"{name}.safetensors")
    pairs = bench.workspace.pairs(bench.artifact("poison"))
    write_table(folder / "pairs.csv", "caption", [ODD, *pairs.captions[1:]], pairs.take(np.arange(len(pairs))))
    val, classes = bench.workspace.data.val, bench.workspace.data.classes
    write_table(folder / "labels.csv", "label", [classes[label] for label in val.labels], val.images)
    (folder / "classes.txt").write_text("\n".join(classes) + "\n")
    return folder


@pytest.fixture(scope="module")
def request_of(files, tmp_path_factory):
    """A maker of requests, each into a folder of its own."""

    def make(**changes: Any) -> Request:
        given = Request(
            model="tiny-rn",
            checkpoint=files / "suspicious.safetensors",
            pairs=files / "pairs.csv",
            out=tmp_path_factory.mktemp("cleaned") / "out",
            reference_checkpoint=files / "clean.safetensors",
            labels=files / "labels.csv",
            classes=str(files / "classes.txt"),
            templates="simple",
            assignments=QUICK,
        )
        return replace(given, **changes)

    return make


@pytest.fixture(scope="module")
def cleaned(request_of):
    given = request_of()
    return given, clean_checkpoint(given)


def test_the_model_is_the_chosen_trial_s_and_not_the_suspicious_one(cleaned, files):
    given, found = cleaned
    weights = load_file(found.model)
    assert weights.keys() == load_file(files / "suspicious.safetensors").keys()
    assert not same_state(weights, load_file(files / "suspicious.safetensors"))
    assert found.note.origin.trial in [record.trial for record in load_run(given.out / "run").records]


def test_nothing_is_measured_with_a_trigger_and_the_choice_knows_none(cleaned):
    given, found = cleaned
    run = load_run(given.out / "run")
    assert run.findings.run.rule == "trigger_free"
    for record in run.records:
        assert record.state == "DONE", record.reason
        assert record.config["victim"]["attack"] is None
        assert record.val.asr is None
    assert "ASR" not in found.page.read_text()


def test_every_model_that_could_be_deployed_has_a_row(cleaned):
    _, found = cleaned
    names = [row.name for row in found.cleaned.models]
    assert names[:3] == ["as it came", "cleaned", "the clean model in its place"]
    assert len(names) == 6
    for row in found.cleaned.models:
        assert 0 <= row.ca_low <= row.ca <= row.ca_high <= 1
        assert row.images == 24, "half of the labelled images had a part in the choice"


def test_suspects_are_listed_by_suspicion_with_their_rows_and_captions(cleaned, files):
    _, found = cleaned
    with found.suspects.open(newline="") as file:
        rows = list(csv.DictReader(file))
    with (files / "pairs.csv").open(newline="") as file:
        pairs = list(csv.DictReader(file))
    assert sorted(int(row["row"]) for row in rows) == list(range(200))
    for row in rows:
        assert row["caption"] == pairs[int(row["row"])]["caption"]
        assert row["image"] == pairs[int(row["row"])]["image"]
        assert (row["similarity"] != "") is (row["suspected"] == "1")
    trust = [float(row["trust"]) for row in rows]
    assert trust == sorted(trust)
    assert [row["suspected"] for row in rows] == ["1"] * 20 + ["0"] * 180
    assert sum(row["selected"] == "1" for row in rows) == 8


def test_the_page_asks_nothing_of_the_network_and_escapes_captions(cleaned):
    _, found = cleaned
    page = found.page.read_text()
    assert not re.findall(r"(?:src|href)=\"(?!data:|suspects\.csv)", page)
    assert "default-src 'none'" in page
    assert "<b>" not in page
    assert page.count('<img src="data:image/png;base64,') == 8
    assert "token telling" in page


def test_the_same_command_computes_nothing_again_and_another_one_is_refused(cleaned, files):
    given, found = cleaned
    before = {file.name: file.read_bytes() for file in (found.model, found.suspects, found.page)}
    again = clean_checkpoint(given)
    assert {file.name: file.read_bytes() for file in (again.model, again.suspects, again.page)} == before
    with pytest.raises(UserError, match="--out: was used to clean something else"):
        clean_checkpoint(replace(given, checkpoint=files / "clean.safetensors"))


def test_without_labels_captions_are_told_apart_and_without_a_clean_model_its_rows_are_left_out(request_of):
    given = request_of(labels=None, classes=None, templates=None, reference_checkpoint=None)
    found = clean_checkpoint(given)
    assert [row.name for row in found.cleaned.models] == ["as it came", "cleaned"]
    page = found.page.read_text()
    assert "No labels were given" in page
    assert "clean accuracy" not in page.lower()
    record = load_run(given.out / "run").records[0]
    assert record.config["defense"]["detector"]["kind"] == "lof"


def test_settings_are_those_that_another_run_chose(cleaned, request_of, tmp_path):
    run = Path(shutil.copytree(cleaned[0].out / "run", tmp_path / "run"))
    for alike, chooses in ((1.0, False), (0.0, True)):
        for path in (run / "records").glob("*.json"):
            path.write_text(re.sub(r'"alike": [0-9.]+', f'"alike": {alike}', path.read_text()))
        study = json.loads((run / "study.json").read_text())
        (run / "study.json").write_text(json.dumps({**study, "objectives": {"rule": "trigger_free", "ca_floor": 1.0}}))
        if not chooses:
            with pytest.raises(UserError, match="--settings: has chosen no settings of UBT"):
                settings_of(run)
    taken = study_for(request_of(settings=run, assignments=()))
    assert taken.trials == 1
    assert taken.defense.unlearn_samples == 8


def test_settings_that_compare_with_a_clean_model_are_refused_where_there_is_none(request_of):
    compared = request_of(reference_checkpoint=None, assignments=(*QUICK, "defense.detector=gain"))
    with pytest.raises(UserError, match=r"(?s)stage `detect_gain` compares with a clean model.*--reference-model"):
        study_for(compared)
    searched = "search={design: grid, space: {defense.detector: [lof, clean]}}"
    with pytest.raises(UserError, match="stage `detect_clean` compares"):
        study_for(replace(compared, assignments=(*QUICK, searched)))
    assert study_for(replace(compared, reference_checkpoint=request_of().reference_checkpoint)).trials == 2


def test_another_defense_is_refused(request_of):
    with pytest.raises(UserError, match="a checkpoint is cleaned by `ubt` alone"):
        study_for(request_of(assignments=("defense={kind: abl}", "search={design: grid, space: {}}")))


def test_a_call_with_a_mistake_in_it_does_not_stand_in_the_way_of_the_next(request_of):
    mistaken = request_of(labels=None, classes=None, templates=None, model="tiny")
    with pytest.raises(UserError, match="tiny"):
        study_for(mistaken)
    assert study_for(replace(mistaken, model="tiny-rn")).victim.attack is None


def test_captions_that_are_numbers_stand_for_no_class(request_of, files):
    texts = ["7", "0", "a boat", "12", "a cat", "a dog"]
    rows = (files / "pairs.csv").read_text().splitlines()
    images = [row.partition(",")[0] for row in rows[1 : len(texts) + 1]]
    pairs = files / "numbers.csv"
    pairs.write_text("image,caption\n" + "".join(f"{row}\n" for row in map(",".join, zip(images, texts, strict=True))))
    study = study_for(request_of(pairs=pairs, labels=None, classes=None, templates=None))
    assert sorted(study.victim.data.class_names()) == ["a boat", "a cat", "a dog"]


def test_a_model_s_folder_is_found_wherever_the_trials_run(request_of, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        study_for(request_of(model="local-dir:mine"))
    assert f"local-dir:{tmp_path / 'mine'}" in [problem.given for problem in caught.value.problems]


def told(capsys, *words: object) -> str:
    with pytest.raises(SystemExit) as ended, pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["ubt", "clean", *map(str, words)])
        main()
    assert ended.value.code == 2
    return capsys.readouterr().err


def test_all_mistakes_are_told_at_once_by_the_names_of_their_options(capsys, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("")
    words = ("--model", "tiny-rn", "--checkpoint", "no.pt", "--pairs", "no.csv", "--out", tmp_path / "full")
    text = told(
        capsys, *words, "--reference-checkpoint", "no2.pt", "--reference-model", "openai", "--classes", "imagenet"
    )
    for message in (
        "--checkpoint: there is no such file",
        "--pairs: there is no such file",
        "--reference-checkpoint: there is no such file",
        "--reference-model: names a clean model, and --reference-checkpoint another",
        "--classes: is of no use without --labels",
        "--out: holds other files",
    ):
        assert message in text
    assert "Traceback" not in text
    assert [file.name for file in (tmp_path / "full").iterdir()] == ["thesis.tex"]


def test_what_is_wrong_inside_the_files_is_told_by_option_or_file(capsys, files, tmp_path):
    shutil.copy(files / "pairs.csv", tmp_path / "pairs.csv")
    words = ("--model", "tiny", "--checkpoint", files / "suspicious.safetensors", "--out", tmp_path / "out")
    text = told(capsys, *words, "--pairs", files / "pairs.csv", "--labels", files / "labels.csv", "--classes", "x.txt")
    assert "--model: " in text
    text = told(capsys, *words, "--model", "tiny-rn", "--pairs", tmp_path / "pairs.csv")
    assert "pairs.csv" in text, "its images are not there"


def test_a_folder_that_can_have_no_such_name_is_told(capsys, files):
    words = ("--model", "tiny-rn", "--checkpoint", files / "suspicious.safetensors", "--pairs", files / "pairs.csv")
    text = told(capsys, *words, "--out", "a" * 300)
    assert "no file or folder can have so long a name" in text
