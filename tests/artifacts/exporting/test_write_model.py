"""Models as files: what open_clip, and this package again, make of weights whose name does not say their activation."""

from __future__ import annotations

import json
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors import safe_open

from ubt.artifacts.exporting.files import Destination, write_model
from ubt.artifacts.exporting.model_note import Origin
from ubt.common.errors import UserError
from ubt.common.model_choice import Format, Which
from ubt.models.activation import activation_of
from ubt.models.build import build_clip
from ubt.models.clip import same_state
from ubt.models.settings import ModelSettings

CPU = torch.device("cpu")
POISONED = Origin(which=Which.POISONED)
FILES = {Format.SAFETENSORS: "it.safetensors", Format.PT: "it.pth", Format.OPEN_CLIP: "it"}


def uses_quickgelu(net: torch.nn.Module) -> bool:
    return any(isinstance(module, open_clip.transformer.QuickGELU) for module in net.modules())


@pytest.mark.parametrize("form", Format)
def test_the_activation_of_the_weights_comes_along_and_is_found_again(form: Format, tmp_path: Path) -> None:
    model = ModelSettings(name="tiny-rn", activation="quickgelu", random_weights=True)
    clip, out = build_clip(model, 0, CPU), tmp_path / FILES[form]
    note = write_model(Destination(out, form), model, clip.state(), POISONED)
    assert note.activation == "quickgelu"
    assert note.architecture["quick_gelu"] is True
    again = ModelSettings(name="tiny-rn", checkpoint=out / note.weights if form is Format.OPEN_CLIP else out)
    assert activation_of(again) == "quickgelu"
    assert same_state(build_clip(again, 0, CPU).state(), clip.state())
    if form is Format.OPEN_CLIP:
        net, _, _ = open_clip.create_model_and_transforms(f"local-dir:{out}")
        assert uses_quickgelu(net)
        assert same_state(net.state_dict(), clip.state())


def test_the_call_that_loads_a_file_says_what_its_name_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tag = open_clip.pretrained._PRETRAINED["RN50"]["yfcc15m"]  # made with QuickGELU, and here with means of its own
    monkeypatch.setitem(tag, "mean", (0.5, 0.5, 0.5))
    monkeypatch.setitem(tag, "std", (0.4, 0.4, 0.4))
    model = ModelSettings(name="RN50", pretrained="yfcc15m")
    clip = build_clip(model, 0, CPU, weights=False)
    note = write_model(Destination(Path("it.pt")), model, clip.state(), POISONED)
    assert note.preprocessing.mean == (0.5, 0.5, 0.5)
    net, _, preprocess = eval(note.load, {"open_clip": open_clip})
    assert uses_quickgelu(net)
    assert same_state(net.state_dict(), clip.state())
    assert (preprocess.transforms[-1].mean, preprocess.transforms[-1].std) == ((0.5, 0.5, 0.5), (0.4, 0.4, 0.4))


def test_a_safetensors_file_says_what_it_is_and_equal_weights_are_equal_bytes(tmp_path: Path) -> None:
    model = ModelSettings(name="tiny-rn", random_weights=True)
    state, origin = build_clip(model, 0, CPU).state(), Origin(which=Which.DEFENDED, study="mine", trial="t1", key="ab")
    notes = [write_model(Destination(tmp_path / f"{n}.safetensors"), model, state, origin) for n in range(3)]
    assert len({note.sha256 for note in notes}) == 1
    with safe_open(tmp_path / "0.safetensors", "pt") as file:
        said = file.metadata()
    assert {name: said[name] for name in ("format", "model", "activation", "which", "study", "trial", "key")} == {
        "format": "pt",
        "model": "tiny-rn",
        "activation": "gelu",
        "which": "defended",
        "study": "mine",
        "trial": "t1",
        "key": "ab",
    }


def test_a_folder_says_the_network_as_open_clip_s_own_writer_does(tmp_path: Path) -> None:
    model = ModelSettings(name="tiny-rn", random_weights=True)
    write_model(Destination(tmp_path / "it", Format.OPEN_CLIP), model, build_clip(model, 0, CPU).state(), POISONED)
    written = json.loads((tmp_path / "it" / "open_clip_config.json").read_text())
    assert written["model_cfg"] == {**open_clip.get_model_config("tiny-rn"), "quick_gelu": False}
    assert set(written) == {"model_cfg", "preprocess_cfg"}
    assert set(written["preprocess_cfg"]) == {"mean", "std", "interpolation", "resize_mode"}


class Tokenizer:
    """As one of `transformers`, which a folder has to bring along."""

    def save_pretrained(self, folder: Path) -> None:
        (folder / "tokenizer.json").write_text("{}")


def test_a_tokenizer_that_open_clip_does_not_bring_is_in_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ModelSettings(name="tiny-rn", random_weights=True)
    state = build_clip(model, 0, CPU).state()
    monkeypatch.setattr(open_clip, "get_tokenizer", lambda name: Tokenizer())
    note = write_model(Destination(tmp_path / "it", Format.OPEN_CLIP), model, state, POISONED)
    assert "tokenizer.json" in note.files
    assert {path.name for path in (tmp_path / "it").iterdir()} == set(note.files)
    Destination(tmp_path / "it", Format.OPEN_CLIP, force=True)


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    tiny = ModelSettings(name="tiny-rn", random_weights=True)
    state = {**build_clip(tiny, 0, CPU).state(), "visual.conv1.weight": torch.zeros(1)}
    with pytest.raises(UserError, match="the weights are not those of this model"):
        write_model(Destination(tmp_path / "it.pt"), tiny, state, POISONED)
    assert not list(tmp_path.iterdir())
