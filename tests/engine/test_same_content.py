"""What a trial reads from its node's disk is compared with the study's: data, weights, triggers, lists, plug-ins."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_victim import assign, run_trial

from ubt.artifacts.store import ArtifactStore
from ubt.data import content_key
from ubt.data.content.known import forget_lists
from ubt.data.csv import CsvFiles
from ubt.engine.graph import build_pipeline
from ubt.engine.runner import TrialRunner
from ubt.engine.same_content import data_differs, differs, files_differ, keep_index, keys_differ, planned_files
from ubt.testing import tiny_trial
from ubt.trials.config import TrialConfig


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("UBT_CACHE", str(tmp_path / "ubt-cache"))


def picture(path, seed):
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    for seed in range(8):
        picture(folder / f"{seed}.png", seed)
    (folder / "pairs.csv").write_text("image,caption\n" + "".join(f"{n}.png,number {n}\n" for n in range(4)))
    (folder / "labels.csv").write_text("image,label\n" + "".join(f"{n}.png,{n % 2}\n" for n in range(4, 8)))
    (folder / "classes.txt").write_text("cat\ndog\n")
    source = {"pairs": folder / "pairs.csv", "labels": folder / "labels.csv", "classes": str(folder / "classes.txt")}
    return CsvFiles.model_validate(source)


@pytest.fixture
def planned(data, tmp_path):
    """An assignment of a study of that data, whose index is in the store."""
    keep_index(ArtifactStore(tmp_path / "store"), data)
    return assign(tmp_path / "store", data_key=content_key(data))


def of_another_process(data, assignment):
    forget_lists()
    return data_differs(data, assignment)


class TestData:
    def test_the_same_data_passes(self, data, planned):
        assert data_differs(data, planned) == ""

    def test_the_path_and_the_first_row_are_named(self, data, planned):
        image = picture(data.pairs.with_name("2.png"), seed=99)
        message = of_another_process(data, planned)
        assert f"{data.pairs}: row 4, {image}: the study has" in message

    @pytest.mark.parametrize("file", ["3.png", "pairs.csv", "labels.csv", "classes.txt"])
    def test_data_that_cannot_be_read_here_is_a_fault_of_the_node(self, data, planned, file):
        data.pairs.with_name(file).unlink()
        assert "this node has" in of_another_process(data, planned)

    def test_without_an_index_the_message_says_where_it_was_looked_for(self, data, planned, tmp_path):
        picture(data.pairs.with_name("2.png"), seed=99)
        shutil.rmtree(tmp_path / "store" / "data")
        assert f"the store {tmp_path / 'store'} does not say" in of_another_process(data, planned)

    def test_a_damaged_index_costs_the_row_alone(self, data, planned, tmp_path):
        picture(data.pairs.with_name("2.png"), seed=99)
        ArtifactStore(tmp_path / "store").keep_index(planned.data_key, b"garbage")
        assert "cannot be told" in of_another_process(data, planned)

    def test_files_that_are_read_otherwise_are_told(self, data, planned):
        other = planned.model_copy(update={"data_key": "0" * 32})
        ArtifactStore(planned.store).keep_index("0" * 32, ArtifactStore(planned.store).index(planned.data_key))
        assert "the versions of ubt and Pillow" in of_another_process(data, other)

    def test_an_index_is_written_once(self, data, planned, monkeypatch):
        monkeypatch.setattr(ArtifactStore, "keep_index", lambda *_: pytest.fail("written again"))
        keep_index(ArtifactStore(planned.store), data)


@pytest.fixture
def files(tmp_path):
    """A trial that reads files of every kind."""
    trigger = picture(tmp_path / "trigger.png", seed=1)
    (tmp_path / "poisoned.csv").write_text("index\n1\n2\n")
    for name in ("clean", "poisoned"):
        torch.save({"weight": torch.zeros(2)}, tmp_path / f"{name}.pt")
    (tmp_path / "my_attack.py").write_text("")
    victim = {
        "model": {"checkpoint": tmp_path / "clean.pt"},
        "implant": {"checkpoint": tmp_path / "poisoned.pt"},
        "attack": {"kind": "patch", "image": trigger, "target": "cat"},
        "poison": {"kind": "given", "manifest": tmp_path / "poisoned.csv"},
    }
    return planned_files(TrialConfig.model_validate({"victim": victim}), [str(tmp_path / "my_attack.py"), "a.module"])


NAMED = {
    "victim.model": "clean.pt",
    "victim.implant.checkpoint": "poisoned.pt",
    "victim.attack.image": "trigger.png",
    "victim.poison.manifest": "poisoned.csv",
    "plugins: {}/my_attack.py": "my_attack.py",
}


class TestFiles:
    def test_every_file_that_a_trial_names_is_planned(self, files, tmp_path):
        expected = {where.format(tmp_path): str(tmp_path / name) for where, name in NAMED.items()}
        assert {file.where: file.path for file in files} == expected

    def test_the_files_of_a_models_folder_are(self, tmp_path):
        for name, content in (("open_clip_config.json", "{}"), ("tokenizer.json", "{}"), ("model.bin", "x")):
            (tmp_path / name).write_text(content)
        trial = TrialConfig.model_validate({"victim": {"model": {"name": f"local-dir:{tmp_path}"}}})
        named = {file.path.rsplit("/", 1)[1] for file in planned_files(trial)}
        assert named >= {"open_clip_config.json", "tokenizer.json"}

    def test_the_list_that_names_images_is_where_their_names_say_what_is_poisoned(self, data):
        victim = {"data": data, "attack": None, "poison": {"kind": "given", "image_pattern": "*3.png"}}
        (named,) = planned_files(TrialConfig.model_validate({"victim": victim}))
        assert (named.where, named.path) == ("victim.data.pairs", str(data.pairs))

    @pytest.mark.parametrize(("where", "name"), NAMED.items())
    @pytest.mark.parametrize("spoil", ["remove", "lengthen", "change"])
    def test_one_that_is_another_here_is_named(self, files, tmp_path, where, name, spoil):
        path = tmp_path / name
        content = path.read_bytes() or b"x"
        path.unlink()
        if spoil != "remove":
            path.write_bytes(content + b"!" if spoil == "lengthen" else content[:-1] + b"!")
        message = files_differ(assign(tmp_path, files=files))
        assert f"{where.format(tmp_path)}, {path}: the study has " in message

    def test_files_that_are_the_same_pass(self, files, tmp_path):
        assert files_differ(assign(tmp_path, files=files)) == ""


class TestKeys:
    def test_a_stage_that_is_another_here_is_named(self, tmp_path):
        assignment = assign(tmp_path)
        pipeline = build_pipeline(tiny_trial(), 0, assignment.data_key)
        keys = [node.key for node in pipeline]
        assert keys_differ(pipeline, assignment.model_copy(update={"keys": tuple(keys)})) == ""
        keys[2] = "of another version"
        message = keys_differ(pipeline, assignment.model_copy(update={"keys": tuple(keys)}))
        assert f"stage `{pipeline[2].spec.name}` has another key here" in message


def test_all_of_a_trial_is_looked_at_in_one_go(tmp_path):
    assignment = assign(tmp_path)
    keys = tuple(node.key for node in build_pipeline(tiny_trial(), 0, assignment.data_key))
    assert differs(assignment.model_copy(update={"keys": keys})) == ""
    assert "another key" in differs(assignment.model_copy(update={"keys": keys[::-1]}))
    assert "plug-in.py" in differs(
        assign(tmp_path, files=[{"where": "plugins", "path": "/plug-in.py", "size_bytes": 7, "sha256": ""}])
    )
    assert "the data differs" in differs(assignment.model_copy(update={"data_key": "other"}))


def test_a_trial_is_handed_back_before_it_computes_anything(tmp_path):
    weights = tmp_path / "weights.pt"
    weights.write_bytes(b"weights")
    files = [{"where": "victim.model", "path": str(weights), "size_bytes": 7, "sha256": "0" * 64}]
    (record,) = run_trial(tmp_path / "store", runner=TrialRunner("gpu-2"), files=files)
    assert (record.state, record.fault, record.lost) == ("FAILED", "UnfitNode", True)
    assert record.attempts[-1].node == "gpu-2"
    assert record.reason.startswith("node gpu-2 has other content than the study was planned with: victim.model, ")
    assert not (tmp_path / "store").exists()
